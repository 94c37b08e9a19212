//! Class 38: identities that are not what they say, at the PostgreSQL login.
//!
//! Directly there is no token: what makes each attack valid is that the honest token opens the same door.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gateway_core::clock::{Clock, ManualClock, SystemClock};
use gateway_core::identity::oidc::{IssuerConfig, JwtAuthenticator, KeySource, PlainHttp};
use testkit::{Forgery, Idp, TokenBuilder};

use crate::arena::{Gateway, Setup, database};
use crate::client::{Client, Door, block};
use testkit::bypass::{Attack, Outcome};

const AUDIENCE: &str = "gateway";

fn idp() -> &'static Idp {
    static IDP: OnceLock<Idp> = OnceLock::new();
    IDP.get_or_init(|| Idp::start().unwrap())
}

fn honest() -> TokenBuilder {
    idp().token().subject("agent-7").audience(AUDIENCE)
}

/// A forged token, made anew for its trial.
type Forge = Box<dyn Fn() -> String + Send>;

pub fn attacks() -> Vec<Attack> {
    let mut attacks: Vec<Attack> = Forgery::all("http://127.0.0.1:9/keys")
        .into_iter()
        .map(|forgery| {
            let name = format!("a forged token: {forgery:?}");
            forged(&name, Box::new(move || honest().forge(&forgery)))
        })
        .collect();
    let more: [(&str, Forge); 8] = [
        (
            "a token for another audience",
            Box::new(|| idp().token().subject("agent-7").audience("shop").sign()),
        ),
        ("a token without audience", Box::new(|| honest().without("aud").sign())),
        ("a token of another issuer", Box::new(|| honest().issuer("https://evil.test").sign())),
        ("a token without subject", Box::new(|| honest().without("sub").sign())),
        ("a token of ten years", Box::new(|| honest().lifetime(Duration::from_secs(315_360_000)).sign())),
        ("a token that acts for a thousand others", Box::new(many_actors)),
        ("no token", Box::new(String::new)),
        ("the password of the target's role", Box::new(|| crate::arena::server().password("app").to_owned())),
    ];
    attacks.extend(more.into_iter().map(|(name, forge)| forged(name, forge)));
    attacks.push(Attack::new(38, "a session that outlives its token", outlived));
    attacks.push(Attack::new(
        38,
        "a session held open in a transaction past its token",
        outlived_in_transaction,
    ));
    attacks
}

fn many_actors() -> String {
    let names: Vec<String> = (0..1000).map(|n| format!("actor-{n}")).collect();
    honest().actors(&names.iter().map(String::as_str).collect::<Vec<_>>()).sign()
}

fn gateway(database: &str, clock: Arc<dyn Clock>) -> Gateway {
    let mut issuer = IssuerConfig::new(idp().issuer(), AUDIENCE, KeySource::JwksUrl(idp().jwks_url()));
    issuer.plain_http = PlainHttp::Loopback;
    let mut setup = Setup::new(database);
    setup.authenticator = Arc::new(JwtAuthenticator::new(vec![issuer]).unwrap());
    setup.clock = clock;
    setup.start()
}

/// With this token nobody may come in; with the honest one the same gateway opens.
fn forged(name: &str, forge: Forge) -> Attack {
    Attack::new(38, name, move || {
        let database = database("");
        let gateway = gateway(&database, Arc::new(SystemClock));
        let door = |token: String| Door { token, ..Door::new(gateway.address, "agent", &database) };
        let mut intruder = block(Client::log_in(&door(forge())));
        if intruder.last.frames.iter().any(|f| f.tag == b'Z') {
            block(intruder.query("SELECT 1"));
            return Outcome::Passed(format!("it opened a session; last {}", intruder.last));
        }
        let mut agent = block(Client::log_in(&door(honest().sign())));
        let rows = block(agent.query("SELECT 1")).text_rows();
        match rows {
            Ok(rows) if rows == [["1"]] => Outcome::Held,
            other => Outcome::TwinFailed(format!("the honest token: {other:?}, last {}", agent.last)),
        }
    })
}

fn outlived() -> Outcome {
    after_expiry(&[], "UPDATE orders SET note = 'late' WHERE id = 1")
}

fn outlived_in_transaction() -> Outcome {
    after_expiry(&["BEGIN", "UPDATE orders SET note = 'late' WHERE id = 1"], "COMMIT")
}

/// Runs `before`, lets the token's time pass, then sends `late`, which must have no effect.
fn after_expiry(before: &[&str], late: &str) -> Outcome {
    let database = database("");
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let gateway = gateway(&database, Arc::clone(&clock) as _);
    let token = honest().lifetime(Duration::from_secs(300)).sign();
    let mut agent = block(Client::log_in(&Door { token, ..Door::new(gateway.address, "agent", &database) }));
    if block(agent.query("SELECT 1")).text_rows().unwrap_or_default() != [["1"]] {
        return Outcome::TwinFailed(format!("before the expiry: {}", agent.last));
    }
    for sql in before {
        block(agent.query(sql));
    }
    // The leeway for clocks that differ is over too.
    clock.advance(Duration::from_secs(400));
    block(agent.query(late));
    drop(agent);
    let note = crate::arena::ask(&database, "SELECT note FROM orders WHERE id = 1").unwrap();
    if note.is_empty() {
        Outcome::Held
    } else {
        Outcome::Passed(format!("it ran after the expiry: `{note}`"))
    }
}
