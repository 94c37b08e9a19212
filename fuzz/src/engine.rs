//! Runs targets: seeds first, then mutations of what was interesting.

use std::collections::HashSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::mutate::mutate;
use crate::random::Random;
use crate::targets::Target;

/// Interesting inputs kept at once; when full, new ones replace old ones at random.
const MAX_POPULATION: usize = 2_000;

/// Findings after which a target is given up.
const MAX_FINDINGS: usize = 10;

/// How long one input may take.
const PATIENCE: Duration = Duration::from_secs(5);

fn folder(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(of)
}

/// Fuzzes one target; the number of findings.
pub fn run(target: &Target, time: Duration, seed: u64, keep: bool) -> usize {
    let (mut random, started) = (Random::new(seed), Instant::now());
    let mut run = Run { target, seen: HashSet::new(), population: Vec::new(), findings: 0, runs: 0 };
    let seeds = seeds(target.name);
    assert!(!seeds.is_empty(), "`{}` has no seeds in corpus/", target.name);
    for input in &seeds {
        run.try_one(input, &mut random);
    }
    run.population.extend(seeds);
    while started.elapsed() < time && run.findings < MAX_FINDINGS {
        let base = random.pick(&run.population).cloned().unwrap_or_default();
        let input = mutate(&mut random, &base, &run.population, target.words);
        if run.try_one(&input, &mut random) && keep {
            save("corpus", target.name, &input);
        }
    }
    println!(
        "fuzz {}: {} inputs in {:.0} s, {} outcomes, {} findings (seed {seed})",
        target.name,
        run.runs,
        started.elapsed().as_secs_f32(),
        run.seen.len(),
        run.findings
    );
    run.findings
}

/// Runs single files; the number of those that fail.
pub fn replay(target: &Target, files: &[PathBuf]) -> usize {
    let failed = |file: &&PathBuf| {
        let input = fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        outcome(target, &input).is_err()
    };
    files.iter().filter(failed).count()
}

struct Run<'a> {
    target: &'a Target,
    seen: HashSet<u64>,
    population: Vec<Vec<u8>>,
    findings: usize,
    runs: u64,
}

impl Run<'_> {
    /// Whether the input came to something new.
    fn try_one(&mut self, input: &[u8], random: &mut Random) -> bool {
        self.runs += 1;
        match outcome(self.target, input) {
            Ok(outcome) if self.seen.insert(outcome) => {
                if self.population.len() < MAX_POPULATION {
                    self.population.push(input.to_vec());
                } else {
                    let at = random.below(MAX_POPULATION);
                    self.population[at] = input.to_vec();
                }
                true
            }
            Ok(_) => false,
            Err(what) => {
                self.findings += 1;
                let file = save("findings", self.target.name, input);
                println!("FINDING {}: {what}; input in {}", self.target.name, file.display());
                false
            }
        }
    }
}

fn outcome(target: &Target, input: &[u8]) -> Result<u64, String> {
    let started = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)))
        .map_err(|cause| cause.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_owned()))?;
    if started.elapsed() > PATIENCE {
        return Err(format!("took {:?}", started.elapsed()));
    }
    Ok(outcome)
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let Ok(files) = fs::read_dir(folder("corpus").join(target)) else { return Vec::new() };
    let mut paths: Vec<_> = files.flatten().map(|file| file.path()).collect();
    paths.sort();
    paths.iter().filter_map(|path| fs::read(path).ok()).collect()
}

fn save(into: &str, target: &str, input: &[u8]) -> PathBuf {
    let digest = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let folder = if into == "corpus" { folder(into).join(target) } else { folder(into) };
    let file = folder.join(if into == "corpus" {
        format!("{digest:016x}")
    } else {
        format!("{target}-{digest:016x}")
    });
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&file, input))
        .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    file
}
