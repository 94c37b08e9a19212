//! A gateway process, an identity provider and a database for one test.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use testkit::{Auth, Finished, Guard, Idp, Postgres, psql_command, run};

/// Long beside anything a command does, even on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The one server of all tests here; each test has a database of its own.
pub(crate) fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| {
        // `trusted` logs in without a password: cheap where many logins are not the point.
        let server = Postgres::builder().role("trusted", Auth::Trust).start().unwrap();
        server.load_shop().unwrap();
        server
    })
}

/// Runs the binary to its end.
pub(crate) fn gateway(args: &[&str]) -> Finished {
    run(Command::new(env!("CARGO_BIN_EXE_gateway")).args(args), "", DEADLINE).unwrap()
}

/// A file of the example.
pub(crate) fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The example configuration, for this test's own provider and database.
pub(crate) struct Stage {
    pub(crate) folder: TempDir,
    pub(crate) idp: Idp,
    pub(crate) database: String,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let stage = Self {
            folder: tempfile::tempdir().unwrap(),
            idp: Idp::start().unwrap(),
            database: server().copy_database("shop").unwrap(),
        };
        stage.write("gateway.toml", &stage.config());
        stage.write("shop.password", server().password("app"));
        fs::create_dir(stage.path("policies")).unwrap();
        for name in ["policies/shop.cedar", "policies/reveal.cedar"] {
            stage.write(name, &stage.localised(&fs::read_to_string(example(name)).unwrap()));
        }
        stage
    }

    fn config(&self) -> String {
        let text = fs::read_to_string(example("gateway.example.toml")).unwrap();
        let text = text
            .replace("http://localhost:8085", self.idp.issuer())
            .replace("port = 5432\n", &format!("port = {}\n", server().port()))
            .replace("database = \"shop\"", &format!("database = \"{}\"", self.database))
            .replace("\"shop.public.", &format!("\"{}.public.", self.database));
        text.replace("127.0.0.1:6432", "127.0.0.1:0")
    }

    /// Policies of the example name the database `shop`; this test's is a copy.
    pub(crate) fn localised(&self, policy: &str) -> String {
        policy.replace("shop/shop", &format!("shop/{}", self.database))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path as an argument.
    pub(crate) fn arg(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Writes a file that only its owner may read.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// The executor's token.
    pub(crate) fn agent(&self) -> String {
        let token = self.idp.token().subject("agent-7").audience("gateway").group("shop-agents");
        token.phase("execute").task("T-1").claim("kind", "agent").sign()
    }

    /// Writes a file with the token of a person of this group, and gives its path.
    pub(crate) fn person(&self, name: &str, group: &str) -> String {
        let token = self.idp.token().subject(name).audience("gateway").group(group).claim("kind", "human");
        let file = format!("{name}.jwt");
        self.write(&file, &token.sign());
        self.arg(&file)
    }

    pub(crate) fn serve(&self) -> Serving<'_> {
        Serving::start(self, self.to_serve())
    }

    /// What [`serve`](Self::serve) runs, for those who run it differently.
    pub(crate) fn to_serve(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        command.args(["serve", "--json", "--config", &self.arg("gateway.toml")]);
        command.stdout(Stdio::piped()).stderr(fs::File::create(self.path("gateway.log")).unwrap());
        command
    }

    /// Runs a command against this gateway's configuration.
    pub(crate) fn command(&self, args: &[&str]) -> Finished {
        let config = self.arg("gateway.toml");
        gateway(&[args, &["--config", &config]].concat())
    }
}

/// A gateway that serves; killed when dropped.
pub(crate) struct Serving<'a> {
    stage: &'a Stage,
    pub(crate) process: Guard,
    stdout: BufReader<ChildStdout>,
    /// Everything it said on standard output, as far as it was read.
    pub(crate) heard: String,
    pub(crate) address: String,
}

impl<'a> Serving<'a> {
    /// Starts the gateway with this command and waits until it is ready.
    pub(crate) fn start(stage: &'a Stage, mut command: Command) -> Self {
        let mut process = Guard::spawn(&mut command).unwrap();
        let stdout = BufReader::new(process.child().stdout.take().unwrap());
        let mut serving = Self { stage, process, stdout, heard: String::new(), address: String::new() };
        serving.address = serving.next_event("listening")["address"].as_str().unwrap().to_owned();
        serving.next_event("ready");
        serving
    }

    /// Reads on until this happens.
    pub(crate) fn next_event(&mut self, event: &str) -> Value {
        loop {
            let mut line = String::new();
            if self.stdout.read_line(&mut line).unwrap() == 0 {
                panic!("the gateway ended before `{event}`: {}", self.log());
            }
            self.heard.push_str(&line);
            let value: Value = serde_json::from_str(&line).unwrap();
            if value["event"] == event {
                return value;
            }
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.stage.path("gateway.log")).unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        run(Command::new("kill").args(["-s", name, &id]), "", DEADLINE).unwrap().success().unwrap();
    }

    /// Ends it cleanly; its recordings are sealed then.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    /// As [`stop`](Self::stop), for those who want to ask it something afterwards.
    pub(crate) fn end(&mut self) {
        self.signal("TERM");
        self.next_event("stopped");
        assert!(self.process.child().wait().unwrap().success(), "{}", self.log());
    }

    pub(crate) fn url(&self, token: &str) -> String {
        format!("postgres://agent:{token}@{}/{}", self.address, self.stage.database)
    }

    /// What psql shows, rows or error.
    pub(crate) fn psql(&self, sql: &str) -> String {
        match psql_command(&self.url(&self.stage.agent()), sql) {
            Ok(out) => out,
            Err(error) => error.to_string(),
        }
    }
}
