//! `gateway serve`: puts the parts together, listens, reloads, stops.

mod announce;
mod data;
mod signals;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::approval::{Approver, Delivery};
use gateway_core::clock::{Clock, SystemClock};
use gateway_core::identity::Authenticator;
use gateway_core::masking::MaskKey;
use gateway_core::pipeline::Pipeline;
use gateway_core::policy::PolicyEngine;
use gateway_core::policy::cedar::CedarEngine;
use gateway_core::recording::Recorder;
use gateway_pg::{Address, CheckError, PgGateway};
use gateway_ssh::{Served, SshGateway};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing_subscriber::EnvFilter;

use crate::admin::{AdminServer, AdminSocket, AuditLog};
use crate::assemble::{
    Endpoint, EnvSecrets, Parts, PgEndpoint, PolicySource, Serves, SshEndpoint, Targets, assemble,
};
use crate::cli::{LogFormat, SecretsArg, Serve};
use crate::config::{self, ConfigFile};
use crate::output::{Failure, Outcome};
use announce::Announcer;
use data::Data;
use signals::{Signals, Wish};

/// How long the start waits for a target to tell whether its labelled columns exist. Later it is asked again before the first
/// session, so that a database that starts after the gateway does not keep it down.
const LABEL_CHECK_TIME: Duration = Duration::from_secs(5);

/// Runs until a signal ends it.
pub(crate) async fn run(options: Serve) -> Outcome {
    start_logging(options.log_format);
    let file = ConfigFile::load(&options.config.config)?;
    if file.config.gateway.parser == config::Parser::Process {
        isolate_parser()?;
    }
    let parts = assemble(&file, EnvSecrets::from(&options.secrets))?;
    let announcer = Announcer::new(options.json);
    let signals = Signals::new()?;
    Gateway::start(&file, parts, announcer).await?.run(signals).await
}

/// Has this program's own `parser` command parse statements.
fn isolate_parser() -> Result<(), Failure> {
    let program = std::env::current_exe().map_err(|e| Failure::new(format!("this program's path: {e}")))?;
    let start = move || {
        let mut command = std::process::Command::new(&program);
        command.arg("parser");
        command
    };
    gateway_pg::analysis::isolate_parser(start).map_err(|e| Failure::new(e.to_string()))
}

impl From<&SecretsArg> for EnvSecrets {
    fn from(secrets: &SecretsArg) -> Self {
        if secrets.demo_insecure_env { Self::Allow } else { Self::Refuse }
    }
}

fn start_logging(format: LogFormat) {
    use std::io::IsTerminal;
    let filter = std::env::var("GATEWAY_LOG").unwrap_or_else(|_| "info".to_owned());
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        // It would tell of a log that cannot be written on standard error, which is that log, and panic: a full disk must not
        // end a writer of recordings.
        .log_internal_errors(false)
        .with_env_filter(EnvFilter::new(filter));
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// A gateway that listens.
struct Gateway {
    announcer: Announcer,
    engine: Arc<CedarEngine>,
    policies: PolicySource,
    data: Data,
    servers: JoinSet<Result<(), Failure>>,
    stop: watch::Sender<bool>,
}

impl Gateway {
    async fn start(file: &ConfigFile, parts: Parts, announcer: Announcer) -> Result<Self, Failure> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let data = Data::open(file, &clock).await?;
        let admin = AdminServer {
            authenticator: Arc::clone(&parts.authenticator) as Arc<dyn Authenticator>,
            approver: data.store.approver(),
            clock: Arc::clone(&clock),
            audit: Arc::new(open_audit_log(file)?),
        };
        let (engine, policies) = (Arc::clone(&parts.engine), parts.policies.clone());
        let (gateways, mut servers) = (gateways(file, parts, &data, clock, announcer)?, JoinSet::new());
        let (stop, stopping) = watch::channel(false);
        for (endpoint, gateway) in gateways {
            if let Server::Postgres(gateway) = &gateway {
                check_labels(gateway, &endpoint.targets().join(", ")).await?;
            }
            let listener = TcpListener::bind(endpoint.address).await;
            let listener = listener.map_err(|e| cannot_listen(&endpoint.address.to_string(), &e))?;
            announcer.listening(listener.local_addr()?, endpoint.targets(), endpoint.protocol())?;
            let stopped = stopped(stopping.clone());
            servers.spawn(async move { gateway.serve(listener, stopped).await });
        }
        let socket = listen_for_reviewers(file.admin_socket()).await?;
        announcer.admin(&file.admin_socket())?;
        let stopped = stopped(stopping);
        servers.spawn(async move {
            admin.serve(socket, stopped).await;
            Ok(())
        });
        Ok(Self { announcer, engine, policies, data, servers, stop })
    }

    async fn run(mut self, mut signals: Signals) -> Outcome {
        self.announcer.ready()?;
        let failed = loop {
            tokio::select! {
                wish = signals.next() => match wish {
                    Wish::Reload => self.reload()?,
                    Wish::Stop(signal) => {
                        tracing::info!(signal, "stopping");
                        break None;
                    }
                },
                Some(ended) = self.servers.join_next() => break Some(ended),
            }
        };
        self.stop.send_replace(true);
        while self.servers.join_next().await.is_some() {}
        self.data.close().await;
        self.announcer.stopped()?;
        match failed {
            None => Ok(ExitCode::SUCCESS),
            Some(Ok(Err(failure))) => Err(failure),
            Some(_) => Err(Failure::new("a listener ended unexpectedly; look into the log")),
        }
    }

    /// Puts the policies as they are in the files now in force, or keeps those in force.
    fn reload(&self) -> Result<(), Failure> {
        let (before, had) = (self.engine.revision(), self.engine.counts());
        let loaded = self
            .policies
            .read()
            .map_err(Failure::new)
            .and_then(|files| self.engine.reload(&files).map_err(Failure::new));
        match loaded {
            Ok(after) => {
                for warning in self.engine.warnings().iter() {
                    tracing::warn!(%warning, "policy warning");
                }
                let has = self.engine.counts();
                tracing::info!(
                    before = %before.0,
                    after = %after.0,
                    changed = before != after,
                    permits = has.permits,
                    permits_before = had.permits,
                    forbids = has.forbids,
                    forbids_before = had.forbids,
                    "policies reloaded"
                );
                self.announcer.reloaded(&before, &after, has)?;
            }
            Err(failure) => {
                tracing::error!(in_force = %before.0, "the policies were not reloaded; the old ones stay: {failure}");
                self.announcer.reload_failed(&before, &failure)?;
            }
        }
        Ok(())
    }
}

/// What serves a listener.
enum Server {
    Postgres(Box<PgGateway>),
    Ssh(SshGateway),
}

impl Server {
    async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), Failure> {
        match self {
            Self::Postgres(gateway) => gateway.serve(listener, stop).await.map_err(Failure::from),
            Self::Ssh(gateway) => gateway.serve(listener, stop).await.map_err(Failure::from),
        }
    }
}

/// One gateway for each listener, all with the same pipeline.
fn gateways(
    file: &ConfigFile,
    parts: Parts,
    data: &Data,
    clock: Arc<dyn Clock>,
    announcer: Announcer,
) -> Result<Vec<(Endpoint, Server)>, Failure> {
    let Parts { authenticator, engine, patterns, scanner, credentials, targets, endpoints, .. } = parts;
    for warning in engine.warnings().iter() {
        tracing::warn!(%warning, "policy warning");
    }
    let pipeline = Pipeline::builder(
        authenticator,
        engine as Arc<dyn PolicyEngine>,
        data.store.approver() as Arc<dyn Approver>,
        Arc::clone(&data.recorder) as Arc<dyn Recorder>,
        Arc::new(credentials),
    )
    .patterns(patterns)
    .scanner(scanner)
    .mask_key(MaskKey::new(*data.store.mask_key_bytes().expose()))
    .digest_key(data.store.digest_key())
    .clock(clock)
    .delivery(match file.config.approval.delivery {
        config::Delivery::Hold => Delivery::Hold,
        config::Delivery::Retry => Delivery::Retry,
    })
    .build()?;
    let served: Vec<_> = endpoints.iter().filter_map(|endpoint| served(endpoint, &targets)).collect();
    let server = |endpoint: Endpoint| {
        let server = match &endpoint.serves {
            // Assembling has checked that every listener's targets exist.
            Serves::Postgres(pg) => match targets.postgres.get(&pg.target).cloned() {
                Some(target) => Server::Postgres(Box::new(pg_gateway(&pipeline, target, pg))),
                None => return Ok(None),
            },
            Serves::Ssh(ssh) => Server::Ssh(ssh_gateway(&pipeline, &targets, &served, ssh, announcer)?),
        };
        Ok(Some((endpoint, server)))
    };
    endpoints.into_iter().filter_map(|endpoint| server(endpoint).transpose()).collect()
}

/// A database that a listener serves: SSH forwards to it are sent there.
fn served(endpoint: &Endpoint, targets: &Targets) -> Option<Served> {
    let Serves::Postgres(pg) = &endpoint.serves else { return None };
    let listener = format!("the listener `{}` of this gateway, for `{}`", endpoint.address, pg.target);
    match &targets.postgres.get(&pg.target)?.address {
        Address::Tcp(host, port) => Some(Served::at(host, *port, listener)),
        Address::Unix(socket) => Some(Served::behind(socket.to_str()?, listener)),
    }
}

/// An SSH gateway as an endpoint wants it. Makes its host key if there is none yet.
fn ssh_gateway(
    pipeline: &Pipeline,
    targets: &Targets,
    served: &[Served],
    endpoint: &SshEndpoint,
    announcer: Announcer,
) -> Result<SshGateway, Failure> {
    let (key, made) = endpoint.host_key.open_or_create().map_err(Failure::new)?;
    announcer.host_key(endpoint.host_key.path(), &key, made)?;
    let mut builder =
        SshGateway::builder(pipeline.clone()).host_key(key.pem()?).limits(endpoint.limits.clone());
    for target in endpoint.targets.iter().filter_map(|name| targets.ssh.get(name)) {
        builder = builder.target(target.clone());
    }
    for served in served {
        builder = builder.served(served.clone());
    }
    Ok(builder.build()?)
}

/// A PostgreSQL gateway as an endpoint wants it.
pub(crate) fn pg_gateway(
    pipeline: &Pipeline,
    target: gateway_pg::Target,
    endpoint: &PgEndpoint,
) -> PgGateway {
    let mut gateway =
        PgGateway::new(pipeline.clone(), target).tokens(endpoint.tokens).limits(endpoint.limits.clone());
    if let Some(tls) = &endpoint.tls {
        gateway = gateway.tls(Arc::clone(tls));
    }
    if endpoint.require_tls { gateway.require_tls() } else { gateway }
}

/// A label on a column that does not exist is a mask that does nothing: no start. A target that is away is only told of.
async fn check_labels(gateway: &PgGateway, target: &str) -> Result<(), Failure> {
    match tokio::time::timeout(LABEL_CHECK_TIME, gateway.check()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error @ CheckError::Labels { .. })) => Err(error.into()),
        Ok(Err(error)) => {
            tracing::warn!(target_name = target, %error, "labels are checked before the first session instead");
            Ok(())
        }
        Err(_) => {
            tracing::warn!(
                target_name = target,
                "the target does not answer; labels are checked before the first session"
            );
            Ok(())
        }
    }
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop too.
    let _ = stopping.wait_for(|stop| *stop).await;
}

async fn listen_for_reviewers(path: PathBuf) -> Result<AdminSocket, Failure> {
    AdminSocket::bind(&path).await.map_err(|e| cannot_listen(&path.display().to_string(), &e))
}

fn cannot_listen(address: &str, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot listen on `{address}`: {error}"))
}

fn open_audit_log(file: &ConfigFile) -> Result<AuditLog, Failure> {
    let path = file.data_dir().audit_log();
    AuditLog::open(&path).map_err(|e| Failure::new(format!("cannot write `{}`: {e}", path.display())))
}
