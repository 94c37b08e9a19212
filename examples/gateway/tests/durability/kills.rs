//! `kill -9` at random moments: what is in the database is in the record.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gateway_core::masking::DataClass;
use gateway_core::recording::file::PublicKey;
use testkit::Guard;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::evidence::Evidence;
use crate::load::{Client, KINDS, Known, TABLE, Told};
use crate::random::Random;
use crate::stage::{DEADLINE, Stage, gateway, server};

/// How many kills; `GATEWAY_TEST_KILLS` overrides it.
const KILLS: u64 = 200;
/// Gateways at the same time, each with its own data folder and database; every second one records strictly. 4: a start waits
/// more than it computes.
const LANES: u64 = 4;

/// When in a round the kill comes.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So long after the process was started: usually before it listens.
    Starting(Duration),
    /// So long after it listens: while clients log in and recordings begin.
    Listening(Duration),
    /// So long after the first answer to a statement.
    Working(Duration),
}

impl Moment {
    const fn random(random: &mut Random) -> Self {
        match random.below(10) {
            0 => Self::Starting(Duration::from_micros(random.below(400_000))),
            1 | 2 => Self::Listening(Duration::from_micros(random.below(100_000))),
            _ => Self::Working(Duration::from_micros(random.below(200_000))),
        }
    }
}

/// What was seen, over all lanes.
#[derive(Debug, Default)]
struct Totals {
    kills: AtomicU64,
    writes: AtomicU64,
    strict_reads: AtomicU64,
    answers: AtomicU64,
    records: AtomicU64,
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// One gateway that is killed again and again, always with the same data folder.
struct Lane<'a> {
    number: u64,
    stage: Stage,
    token: String,
    random: Random,
    runtime: Runtime,
    totals: &'a Totals,
}

impl<'a> Lane<'a> {
    fn new(number: u64, random: Random, totals: &'a Totals) -> Self {
        let stage = Stage::new();
        server().psql(&stage.database, TABLE).unwrap();
        make_starts_cheap(&stage);
        if is_strict(number) {
            let config = std::fs::read_to_string(stage.path("gateway.toml")).unwrap();
            let strict = config.replacen("durability = \"default\"", "durability = \"strict\"", 1);
            assert_ne!(strict, config);
            stage.write("gateway.toml", &strict);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { number, token: stage.agent(), stage, random, runtime, totals }
    }

    fn run(mut self, kills: u64) {
        let mut evidence = self.first_start();
        for round in 0..kills {
            let moment = Moment::random(&mut self.random);
            let known = self.round(round, moment);
            let committed = self.committed(round);
            evidence.look();
            let missing = evidence.missing(&committed);
            assert!(missing.is_empty(), "committed without a record: {missing:?}, killed {moment:?}");
            // The other way round it is the server's promise; it shows that the comparison compares.
            let has = |tag: &String, last: &u64| committed.get(tag).is_some_and(|there| there >= last);
            let lost: Vec<_> = known.committed.iter().filter(|(tag, last)| !has(tag, last)).collect();
            assert!(lost.is_empty(), "said to be committed but not there: {lost:?}");
            if is_strict(self.number) {
                let missing = evidence.missing(&known.read);
                assert!(missing.is_empty(), "released without a record: {missing:?}, killed {moment:?}");
                self.totals.strict_reads.fetch_add(known.read.len() as u64, Ordering::Relaxed);
            }
            self.totals.kills.fetch_add(1, Ordering::Relaxed);
            self.totals.writes.fetch_add(committed.values().sum(), Ordering::Relaxed);
        }
        self.totals.records.fetch_add(evidence.records, Ordering::Relaxed);
        self.last_start();
    }

    /// Makes the keys, so that a kill during a start has something to look at.
    fn first_start(&self) -> Evidence {
        self.stage.serve().stop();
        let key = PublicKey::load(&self.stage.path("data/recording.pub")).unwrap();
        Evidence::new(&self.stage.path("data/recordings"), key)
    }

    /// Starts, loads and kills a gateway. Returns what its clients know.
    fn round(&mut self, round: u64, moment: Moment) -> Known {
        let (told, wait) = (
            Arc::new(Told::default()),
            match moment {
                Moment::Starting(wait) => {
                    let process = Guard::spawn(&mut self.stage.to_serve()).unwrap();
                    std::thread::sleep(wait);
                    drop(process);
                    return Known::default();
                }
                Moment::Listening(wait) | Moment::Working(wait) => wait,
            },
        );
        let random = self.random.split();
        let serving = self.stage.serve();
        let clients = self.clients(round, random, &serving.address, &told);
        let known = self.runtime.block_on(async {
            if matches!(moment, Moment::Working(_)) {
                tokio::time::timeout(DEADLINE, told.answered.notified()).await.expect("no answer in time");
            }
            tokio::time::sleep(wait).await;
            // As `kill -9` does.
            drop(serving);
            clients.join_all().await
        });
        self.totals.answers.fetch_add(told.answers.load(Ordering::Relaxed), Ordering::Relaxed);
        known.into_iter().fold(Known::default(), |mut all, one| {
            all.committed.extend(one.committed);
            all.read.extend(one.read);
            all
        })
    }

    fn clients(&self, round: u64, mut random: Random, address: &str, told: &Arc<Told>) -> JoinSet<Known> {
        let mut clients = JoinSet::new();
        for (number, kind) in KINDS.into_iter().enumerate() {
            let who = (self.stage.database.clone(), self.token.clone());
            let prefix = format!("L{}R{round}C{number}", self.number);
            let (random, told) = (random.split(), Arc::clone(told));
            let work = Client::work(address.to_owned(), who, kind, prefix, random, told);
            clients.spawn_on(work, self.runtime.handle());
        }
        clients
    }

    /// The writes of this round that are in the database once its server has noticed that the gateway is gone.
    fn committed(&self, round: u64) -> BTreeMap<String, u64> {
        let prefix = format!("L{}R{round}C", self.number);
        let sql = format!(
            "DO $$ BEGIN WHILE EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() \
                 AND backend_type = 'client backend' AND pid <> pg_backend_pid()) \
             LOOP PERFORM pg_sleep(0.002); PERFORM pg_stat_clear_snapshot(); END LOOP; END $$; \
             SELECT tag, max(execution) FROM writes WHERE tag LIKE '{prefix}%' GROUP BY tag"
        );
        let rows = server().psql(&self.stage.database, &sql).unwrap();
        let row = |line: &str| {
            let (tag, last) = line.split_once('|').unwrap();
            (tag.to_owned(), last.parse().unwrap())
        };
        rows.lines().map(row).collect()
    }

    /// After all that it serves as if nothing had happened, and its own commands agree.
    fn last_start(&self) {
        let serving = self.stage.serve();
        assert_eq!(serving.psql("INSERT INTO writes VALUES ('last', 1, 0)"), "");
        assert_eq!(serving.psql("SELECT count(*) FROM writes WHERE tag = 'last'"), "1");
        serving.stop();
        let (recordings, key) = (self.stage.arg("data/recordings"), self.stage.arg("data/recording.pub"));
        let verified = gateway(&["sessions", "verify", &recordings, "--key", &key]).success().unwrap();
        assert!(verified.contains("SOUND"), "{verified}");
        let listed = self.stage.command(&["sessions", "list", "--json", "--limit", "200"]).success().unwrap();
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let open = listed.as_array().unwrap().iter().filter(|row| row["status"] == "open").count();
        assert_eq!(open, 0, "sessions of dead gateways are still open: {listed}");
    }
}

const fn is_strict(lane: u64) -> bool {
    lane % 2 == 1
}

/// Without optimisation, compiling rules, stretching passwords and reading the system's certificates is most of a start; no
/// kill depends on them.
pub(crate) fn make_starts_cheap(stage: &Stage) {
    let classes: Vec<_> = DataClass::BUILT_IN.iter().map(|class| format!("\"{class}\"")).collect();
    let config = std::fs::read_to_string(stage.path("gateway.toml")).unwrap();
    let (before, rest) = config.split_once("[[patterns]]").unwrap();
    let (_, after) = rest.split_once("[[target]]").unwrap();
    let masking = format!("[masking]\ndisabled = [{}]\n", classes.join(", "));
    let config = format!("{before}{masking}[[target]]{after}");
    let credential = "{ username = \"app\", password_file = \"shop.password\" }";
    let config = config.replacen(credential, "{ username = \"trusted\", no_secret = true }", 1);
    let config = config.replacen("discovery = true", "jwks_file = \"keys.json\"", 1);
    let config = config.replacen("plain_http_loopback = true", "", 1);
    stage.write("keys.json", &stage.idp.jwks().to_string());
    stage.write("gateway.toml", &config);
}

#[test]
fn what_is_committed_is_recorded_whenever_the_gateway_is_killed() {
    let kills = setting("GATEWAY_TEST_KILLS", KILLS);
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = setting("GATEWAY_TEST_SEED", clock.as_millis() as u64);
    println!("seed {seed}: repeat with GATEWAY_TEST_SEED={seed}");
    let (mut random, totals, start) = (Random::new(seed), Totals::default(), Instant::now());
    std::thread::scope(|scope| {
        for number in 0..LANES.min(kills) {
            let lane_random = random.split();
            let kills = kills / LANES + u64::from(number < kills % LANES);
            let totals = &totals;
            scope.spawn(move || Lane::new(number, lane_random, totals).run(kills));
        }
    });
    let of = |total: &AtomicU64| total.load(Ordering::Relaxed);
    assert_eq!(of(&totals.kills), kills);
    assert!(of(&totals.writes) > kills, "too few writes to mean anything: {totals:?}");
    // Written past the capture of output: one line, also when all is well.
    writeln!(
        std::io::stderr(),
        "kills: seed {seed}, {} kills, {} committed writes and {} strict reads all recorded, {} answers, {} proven \
         records, {:.0?}",
        of(&totals.kills),
        of(&totals.writes),
        of(&totals.strict_reads),
        of(&totals.answers),
        of(&totals.records),
        start.elapsed()
    )
    .unwrap();
}

#[test]
fn a_write_past_the_gateway_is_noticed() {
    let totals = Totals::default();
    let mut lane = Lane::new(9, Random::new(1), &totals);
    let mut evidence = lane.first_start();
    let known = lane.round(0, Moment::Working(Duration::from_millis(50)));
    server().psql(&lane.stage.database, "INSERT INTO writes VALUES ('L9R0C9N1', 1, 0)").unwrap();
    evidence.look();
    let committed = lane.committed(0);
    assert_eq!(evidence.missing(&committed), ["L9R0C9N1"], "{known:?}");
}
