//! The dice: which slices, which faults, when. Everything follows from the seed, and nothing from what happens.

mod faults;
mod wishes;

use std::collections::BTreeMap;

use super::steps::Step;
use super::wish::Wish;

/// Makes rounds of steps.
pub(super) struct Dice {
    rng: fastrand::Rng,
    workers: u8,
    /// What the drafts are when every change was taken; nobody relies on it.
    drafts: BTreeMap<String, Wish>,
    /// A worker that was drained.
    cordoned: Option<String>,
    /// How many days the network node's clock is ahead.
    netnode_days: i8,
}

impl Dice {
    /// Those of a seed.
    pub(super) fn new(seed: u64, workers: u8) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            workers,
            drafts: BTreeMap::new(),
            cordoned: None,
            netnode_days: 0,
        }
    }

    /// A few changes with faults between them, and a quiet period; then a few changes by hand, one after the other.
    pub(super) fn round(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        if let Some(worker) = self.cordoned.take() {
            let twice = self.twice();
            steps.push(Step::Uncordon { worker, twice });
        }
        match self.rng.u8(..8) {
            0 => steps.extend(self.catastrophe()),
            1 => steps.extend(self.farewell()),
            _ => {}
        }
        for _ in 0..self.rng.usize(2..=4) {
            for _ in 0..self.rng.usize(0..=2) {
                let fault = self.fault();
                let named = matches!(fault, Step::FailPoint { .. });
                steps.push(fault);
                if named {
                    // Most points are reached only where much is to be done.
                    steps.push(self.deployed());
                }
            }
            steps.extend(self.change());
        }
        // By hand on something that stands, too.
        if self.rng.bool() {
            steps.push(self.drift());
        }
        steps.push(Step::Quiet);
        for _ in 0..self.rng.usize(0..=2) {
            let (host, what, pick) = self.by_hand();
            steps.push(Step::ByHand { host, what, pick });
        }
        steps
    }

    /// The controller's state is lost after much was deployed that the last export does not hold.
    fn catastrophe(&mut self) -> Vec<Step> {
        let mut steps = vec![Step::Export];
        for _ in 0..2 {
            let slice = self.slice();
            steps.push(self.large(slice));
        }
        steps.push(Step::Quiet);
        if self.rng.bool() {
            steps.push(self.fault());
        }
        steps.push(Step::Restore);
        steps.push(Step::Quiet);
        steps
    }

    /// A worker is emptied, or dies for good.
    fn farewell(&mut self) -> Vec<Step> {
        let (worker, twice) = (self.worker(), self.twice());
        if self.workers == 1 || self.rng.bool() {
            return vec![Step::Gone { worker, twice }];
        }
        let others: Vec<u8> = (1..=self.workers)
            .filter(|other| format!("w{other}") != worker)
            .collect();
        let onto = format!("w{}", others[self.rng.usize(..others.len())]);
        self.cordoned = Some(worker.clone());
        let fault = self.fault();
        vec![fault, Step::Drain { worker, onto, twice }]
    }

    /// Now and then a client does not hear its answer and asks again.
    fn twice(&mut self) -> bool {
        self.rng.u8(..4) == 0
    }

    fn worker(&mut self) -> String {
        format!("w{}", self.rng.u8(1..=self.workers))
    }
}
