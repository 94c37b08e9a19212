//! Attacks as data: `cases/*.toml`. The fields are those of [`Case`]; steps are those of [`crate::client::Step`].

use std::sync::Arc;

use serde::Deserialize;

use crate::arena::{
    Setup, allow_all, ask, database, policy_for_settings, policy_with_duties, policy_without_inference,
    rewriting, server,
};
use crate::client::{Client, Door, Step, block};
use testkit::bypass::{Attack, Outcome};

/// A file of cases of one class.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    class: u8,
    /// Whether conditions and the like on hidden columns are permitted, as in most files: there masking is put to the test.
    #[serde(default = "yes")]
    infer: bool,
    case: Vec<Case>,
}

/// One attack and its harmless twin.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// What it is a variant of: numbers in `techniques.toml`.
    #[serde(default)]
    techniques: Vec<u8>,
    /// Policy permits everything: only masks and what the gateway refuses by itself protect.
    #[serde(default)]
    permissive: bool,
    /// Content is masked too.
    #[serde(default)]
    content: bool,
    /// Run before as superuser.
    #[serde(default)]
    setup: String,
    /// The role that the attack needs directly and the gateway logs in as.
    #[serde(default = "app")]
    role: String,
    #[serde(skip, default = "yes")]
    infer: bool,
    /// Rewrites that come with every permission, besides `max_rows_affected:N`.
    #[serde(default)]
    duties: Vec<String>,
    /// Startup parameters besides user and database.
    #[serde(default)]
    startup: Vec<(String, String)>,
    /// Whether to log in before the steps.
    #[serde(default = "yes")]
    login: bool,
    steps: Vec<Step>,
    /// What proves directly that the attack's payload is harmful, where the real server refuses its wrapping.
    control: Option<Vec<Step>>,
    /// True (`t`) if damage was done, besides a changed vault. Run as superuser.
    damage: Option<String>,
    /// What must not be received, besides the vault's secrets.
    #[serde(default)]
    leak: Vec<String>,
    /// What must not be in the server's log: it did not even get there. `{mark}` is unique for the trial.
    unseen: Option<String>,
    /// What the policy has done to statements that read, for example `limit:3`.
    rewrite: Option<String>,
    /// The twin: steps whose last answer must have the rows `expect`.
    benign: Steps,
    expect: String,
    /// The agent may change every setting.
    #[serde(default)]
    sets: bool,
    /// The twin gets a connection of its own.
    #[serde(default)]
    fresh: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Steps {
    One(String),
    Many(Vec<Step>),
}

fn app() -> String {
    "app".to_owned()
}

const fn yes() -> bool {
    true
}

const FILES: [&str; 32] = [
    include_str!("cases/01-several-statements.toml"),
    include_str!("cases/02-hidden-writes.toml"),
    include_str!("cases/03-wrapped.toml"),
    include_str!("cases/04-code.toml"),
    include_str!("cases/05-server-side.toml"),
    include_str!("cases/06-reading-of-text.toml"),
    include_str!("cases/06-older-grammar.toml"),
    include_str!("cases/07-meaning-of-names.toml"),
    include_str!("cases/08-who-runs.toml"),
    include_str!("cases/09-extended.toml"),
    include_str!("cases/10-other-messages.toml"),
    include_str!("cases/11-size.toml"),
    include_str!("cases/12-framing.toml"),
    include_str!("cases/13-expressions.toml"),
    include_str!("cases/14-whole-rows.toml"),
    include_str!("cases/15-queries.toml"),
    include_str!("cases/15-nearer-names.toml"),
    include_str!("cases/15-duties.toml"),
    include_str!("cases/15-restricted.toml"),
    include_str!("cases/16-stored-elsewhere.toml"),
    include_str!("cases/16-definitions.toml"),
    include_str!("cases/17-errors-and-notices.toml"),
    include_str!("cases/18-catalogs.toml"),
    include_str!("cases/19-told.toml"),
    include_str!("cases/19-inference.toml"),
    include_str!("cases/19-compared.toml"),
    include_str!("cases/20-formats.toml"),
    include_str!("cases/21-split-and-coded.toml"),
    include_str!("cases/22-brought-along.toml"),
    include_str!("cases/23-looked-up.toml"),
    include_str!("cases/24-limits.toml"),
    include_str!("cases/25-replaced.toml"),
];

pub fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for text in FILES {
        let file: File = toml::from_str(text).unwrap();
        for mut case in file.case {
            case.infer = file.infer;
            let (name, techniques) = (case.name.clone(), case.techniques.clone());
            attacks.push(Attack::new(file.class, &name, move || case.attempt()).by(&techniques));
        }
    }
    attacks
}

/// What the vault holds while nobody touched it.
const VAULT: &str = "1VAULT-SECRET-ONE,2VAULT-SECRET-TWO,3VAULT-SECRET-SIX";

impl Case {
    fn attempt(&self) -> Outcome {
        if let Err(why) = self.marked().directly() {
            return Outcome::Invalid(why);
        }
        self.marked().through_the_gateway()
    }

    /// The case with `{mark}` filled in, another one for each run.
    fn marked(&self) -> Self {
        let (mut case, mark) = (self.clone(), testkit::random_text(16).to_lowercase());
        let fill = |text: &mut String| *text = text.replace("{mark}", &mark);
        for step in case.steps.iter_mut().chain(case.control.iter_mut().flatten()) {
            step.texts().into_iter().for_each(fill);
        }
        fill(&mut case.setup);
        case.damage.iter_mut().chain(&mut case.unseen).chain(&mut case.leak).for_each(fill);
        case
    }

    /// Without the gateway the damage must happen.
    fn directly(&self) -> Result<(), String> {
        let database = self.database();
        let door = self.door(server().address(), &self.role, &database);
        let steps = self.control.as_ref().unwrap_or(&self.steps);
        let login = self.login || self.control.is_some();
        let client = block(run(&door, login, steps));
        match self.damage(&database, &client.received) {
            None => Err(format!("no damage without the gateway, after {}", client.last)),
            Some(_) => match &self.unseen {
                Some(text) if !logged(text) => Err("the server's log does not show it either".to_owned()),
                _ => Ok(()),
            },
        }
    }

    fn through_the_gateway(&self) -> Outcome {
        let database = self.database();
        let mut setup = Setup::new(&database);
        setup.role.clone_from(&self.role);
        setup.content = self.content;
        if self.sets {
            setup.policy = Arc::new(policy_for_settings());
        } else if self.permissive {
            setup.policy = Arc::new(allow_all());
        } else if !self.infer {
            setup.policy = Arc::new(policy_without_inference());
        } else if let Some(rewrite) = &self.rewrite {
            setup.policy = Arc::new(rewriting(rewrite.clone()));
        } else if !self.duties.is_empty() {
            setup.policy = Arc::new(policy_with_duties(&self.duties));
        }
        let gateway = setup.start();
        let door = self.door(gateway.address, "agent", &database);
        let mut client = block(run(&door, self.login, &self.steps));
        if let Some(how) = self.damage(&database, &client.received) {
            return Outcome::Passed(format!("{how}; last {}", client.last));
        }
        if self.unseen.as_deref().is_some_and(logged) {
            return Outcome::Passed("it reached the server".to_owned());
        }
        let twin = block(async {
            if self.fresh {
                let door = Door { startup: Vec::new(), ..door.clone() };
                client = Client::log_in(&door).await;
            }
            client.leave_transaction().await;
            client.run(&self.benign.list()).await;
            rows(&client)
        });
        if twin != self.expect {
            return Outcome::TwinFailed(format!("got `{twin}`, not `{}`; last {}", self.expect, client.last));
        }
        Outcome::Held
    }

    fn database(&self) -> String {
        let name = database(&self.setup);
        if self.unseen.is_some() {
            ask("postgres", &format!("ALTER DATABASE {name} SET log_statement = 'all'")).unwrap();
        }
        name
    }

    fn door(&self, address: std::net::SocketAddr, user: &str, database: &str) -> Door {
        let mut door = Door::new(address, user, database);
        door.startup.clone_from(&self.startup);
        door
    }

    fn damage(&self, database: &str, received: &[u8]) -> Option<String> {
        let vault = "SELECT string_agg(id || secret, ',' ORDER BY id) FROM ONLY public.vault";
        match ask(database, vault) {
            Ok(content) if content == VAULT => {}
            other => return Some(format!("the vault is changed: {other:?}")),
        }
        if let Some(sql) = &self.damage
            && ask(database, sql) != Ok("f".to_owned())
        {
            return Some(format!("`{sql}` is not false"));
        }
        let leaks = self.leak.iter().map(String::as_str).chain(["VAULT-SECRET"]);
        leaks.into_iter().find(|l| contains(received, l)).map(|l| format!("received `{l}`"))
    }
}

impl Steps {
    fn list(&self) -> Vec<Step> {
        match self {
            Self::One(sql) => vec![Step::Query(sql.clone())],
            Self::Many(steps) => steps.clone(),
        }
    }
}

async fn run(door: &Door, login: bool, steps: &[Step]) -> Client {
    let mut client = if login { Client::log_in(door).await } else { Client::connect(door).await };
    client.run(steps).await;
    client
}

/// The last answer's rows, as `a|b` and divided by `;`; without rows, its command tag.
fn rows(client: &Client) -> String {
    if let Some(fault) = client.last.error() {
        return format!("error: {fault}");
    }
    let rows = client.last.text_rows().unwrap_or_default();
    let rows: Vec<_> = rows.iter().map(|r| r.join("|")).collect();
    let tags = client.last.frames.iter().filter(|f| f.tag == b'C');
    let tag = tags.map(|f| String::from_utf8_lossy(&f.body).trim_end_matches('\0').to_owned()).next_back();
    if rows.is_empty() { tag.unwrap_or_default() } else { rows.join(";") }
}

pub fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle.as_bytes())
}

fn logged(text: &str) -> bool {
    server().log_of_everything_so_far().unwrap().contains(text)
}
