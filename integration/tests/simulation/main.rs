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

mod disk;
mod machines;
mod story;
mod world;

use std::{
    env, panic,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use story::{Ended, tell};
use world::Figures;

/// Seeds of an ordinary run: at most 20 s on two cores that do nothing else.
const SEEDS: u64 = 100;

fn number(variable: &str, otherwise: u64) -> u64 {
    env::var(variable).map_or(otherwise, |text| text.parse().expect(variable))
}

/// One seed, on a thread of its own: whatever a thread keeps begins anew with each.
fn simulate(seed: u64) -> Ended {
    let story = move || {
        let told = panic::catch_unwind(|| tell(seed));
        told.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Ended::broken(format!("panic: {}", text.unwrap_or_default()))
        })
    };
    thread::Builder::new().spawn(story).unwrap().join().unwrap()
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
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds || wrong.lock().unwrap().len() >= 5 {
                        return;
                    }
                    let ended = simulate(seed);
                    total.lock().unwrap().add(&ended.figures);
                    if !ended.wrong.is_empty() || env::var_os("SIMULATION_LOG").is_some() {
                        let mut wrong = wrong.lock().unwrap();
                        show(seed, &ended);
                        wrong.extend((!ended.wrong.is_empty()).then_some(seed));
                    }
                }
            });
        }
    });
    println!("{seeds} seeds in {:.1?}: {:?}", began.elapsed(), total.into_inner().unwrap());
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "seeds that went wrong: {wrong:?}; SIMULATION_FIRST=<seed> SIMULATION_SEEDS=1 shows one again");
}

#[test]
fn a_seed_tells_the_same_story_again() {
    for seed in [1, 2, 3] {
        let (one, other) = (simulate(seed), simulate(seed));
        let differs = one.log.iter().zip(&other.log).position(|(a, b)| a != b);
        if let Some(at) = differs {
            panic!("seed {seed}, line {at}:\n{:#?}\n{:#?}", &one.log[at.saturating_sub(3)..=at], other.log[at]);
        }
        assert_eq!((one.log.len(), one.digest), (other.log.len(), other.digest), "seed {seed}");
    }
}
