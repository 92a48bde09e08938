//! The stream protocol under deterministic simulation: the controller's core and sessions, and the nodes' sessions, inboxes and loops,
//! all real, in one thread, over a network that delays, holds and drops, on machines that are killed at any moment, with a clock that
//! runs as fast as the work allows.
//!
//! ```text
//!   SIMULATION_SEEDS=2000 [SIMULATION_FIRST=1] cargo nextest run -p trunkline-integration --test simulation
//!   SIMULATION_FIRST=4711 SIMULATION_SEEDS=1 SIMULATION_LOG=1 ...      one seed again, with everything that happened
//! ```
//!
//! A seed draws the whole story: what operators ask for, and what breaks when. `world` holds what outlives crashes and the rules
//! that must hold at every moment; `story` breaks things, heals them, and says what must be true then.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::cast_possible_truncation)]

mod chance;
mod disk;
mod machines;
mod story;
mod world;

use std::{
    env,
    path::PathBuf,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use story::{Ended, tell};
use world::Figures;

/// Seeds of an ordinary run.
const SEEDS: u64 = 100;

/// Seeds that may go wrong before no more are tried.
const ENOUGH: usize = 5;

/// Tells a process that it tells one seed's story, and where to write how it ended.
const ONE: &str = "SIMULATION_ONE";

fn number(variable: &str, otherwise: u64) -> u64 {
    env::var(variable).map_or(otherwise, |text| text.parse().expect(variable))
}

/// One seed, in a process of its own: tokio counts its runtimes in the whole process, and draws from that too.
fn simulate(seed: u64) -> Ended {
    let dir = tempfile::Builder::new()
        .prefix("simulation")
        .tempdir_in(story::memory())
        .unwrap();
    let told = Command::new(env::current_exe().unwrap())
        .args(["--exact", "one_story", "--nocapture"])
        .env(ONE, format!("{seed}:{}", dir.path().display()))
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    match std::fs::read(dir.path().join("ended")) {
        Ok(ended) => serde_json::from_slice(&ended).unwrap(),
        Err(error) => Ended::broken(format!(
            "{}, {error}: {}{}",
            told.status,
            String::from_utf8_lossy(&told.stdout),
            String::from_utf8_lossy(&told.stderr)
        )),
    }
}

/// The other side of [`simulate`]; without a seed to tell, the first one's story, for its own sake.
#[test]
fn one_story() {
    let Ok(one) = env::var(ONE) else {
        return assert_eq!(simulate(1).wrong, Vec::<String>::new());
    };
    let (seed, dir) = one.split_once(':').unwrap();
    let (seed, dir) = (seed.parse().unwrap(), PathBuf::from(dir));
    let ended = tell(seed, &dir);
    std::fs::write(dir.join("ended"), serde_json::to_vec(&ended).unwrap()).unwrap();
}

fn show(seed: u64, ended: &Ended) {
    let all = env::var_os("SIMULATION_LOG").is_some();
    let from = if all { 0 } else { ended.log.len().saturating_sub(60) };
    for line in &ended.log[from..] {
        println!("{line}");
    }
    println!("seed {seed}: {:#?}", ended.wrong);
}

#[test]
fn whatever_breaks_nothing_is_lost_nothing_falls_back_no_vlan_is_shared_and_all_converge() {
    let (first, seeds) = (number("SIMULATION_FIRST", 1), number("SIMULATION_SEEDS", SEEDS));
    let (next, began) = (AtomicU64::new(first), Instant::now());
    let (total, wrong) = (Mutex::new(Figures::default()), Mutex::new(Vec::new()));
    let all = env::var_os("SIMULATION_LOG").is_some();
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds || wrong.lock().unwrap().len() >= ENOUGH {
                return;
            }
            let ended = simulate(seed);
            total.lock().unwrap().add(&ended.figures);
            let mut wrong = wrong.lock().unwrap();
            if all || !ended.wrong.is_empty() {
                show(seed, &ended);
            }
            wrong.extend((!ended.wrong.is_empty()).then_some(seed));
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    println!(
        "{seeds} seeds in {:.1?}: {:#?}",
        began.elapsed(),
        total.into_inner().unwrap()
    );
    let wrong = wrong.into_inner().unwrap();
    assert!(
        wrong.is_empty(),
        "seeds that went wrong: {wrong:?}; SIMULATION_FIRST=<seed> SIMULATION_SEEDS=1 SIMULATION_LOG=1 shows all of one"
    );
}

#[test]
fn a_seed_tells_the_same_story_again() {
    for seed in 1..=5 {
        let (one, other) = (simulate(seed), simulate(seed));
        let differs = one.log.iter().zip(&other.log).position(|(a, b)| a != b);
        if let Some(at) = differs {
            panic!(
                "seed {seed}, line {at}:\n{:#?}\n{:#?}",
                &one.log[at.saturating_sub(3)..=at],
                other.log[at]
            );
        }
        assert_eq!(
            (one.log.len(), one.digest),
            (other.log.len(), other.digest),
            "seed {seed}"
        );
    }
}
