//! One run: a fleet, the steps one after the other, and in each quiet period the oracle.

mod hand;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use trunkline_proto::wire::{Slice, State};

use super::act::Operator;
use super::fault::{self, Reviver};
use super::journal::{self, Journal};
use super::lost::{self, PutAway};
use super::oracle::{self, difference, expected};
use super::steps::Step;
use super::strangers::Strangers;
use super::{guests, look, trace};
use crate::LabError;
use crate::api::Api;
use crate::lab::layout::NETNODE;
use crate::lab::{Lab, Options, Tuning};
use crate::wait::until;

/// Until status says that all is ready after everything was healed, on a machine that has much else to do.
const READY_LIMIT: Duration = Duration::from_secs(180);
/// Until every host is as it should be. What tells nobody of its change is looked for every 20 s.
const EQUAL_LIMIT: Duration = Duration::from_secs(90);
/// What is gone from every node is given to others so soon: often, within the time of a campaign.
const REST: &str = "2s";
/// A guest that is gone and was not removed keeps its lease so long, and status says so of whoever is to have its address.
const LEASE: &str = "2m";

/// What was done, for the last line.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Figures {
    /// Quiet periods that held.
    pub quiet: usize,
    /// Steps.
    pub steps: usize,
    /// Changes that were made, and refused.
    pub changes: (usize, usize),
    /// Faults by their kind.
    pub faults: BTreeMap<String, usize>,
    /// Deaths at named points, by point.
    pub deaths: BTreeMap<String, usize>,
    /// Changes by hand that the journal told of, and those that it left out by its own word.
    pub repaired: (usize, usize),
    /// Removals that nodes held back after a restore and that were confirmed.
    pub confirmed: usize,
    /// Events that were read, without a gap.
    pub events: usize,
    /// Questions of guests.
    pub questions: usize,
    /// Longest time from healed to ready, and from ready to equal.
    pub slowest: (Duration, Duration),
}

/// What did not hold, and when.
#[derive(Debug)]
pub(super) struct Failure {
    /// Number of the step.
    pub(super) step: usize,
    /// What was seen.
    pub(super) why: String,
    /// Where the logs are.
    pub(super) kept: Option<PathBuf>,
    /// What had held until then.
    pub(super) figures: Figures,
}

/// One fleet and what is known of it.
struct Run<'a> {
    lab: &'a Lab,
    operator: Operator,
    reviver: &'a Reviver,
    strangers: Strangers,
    journal: Journal,
    put_away: Option<PutAway>,
    /// Since the last quiet period that held, an export came back.
    restored: bool,
    figures: Figures,
    say: &'a (dyn Fn(&str) + Sync),
}

/// Where steps come from: the dice, or a list.
pub(super) trait Source {
    /// The next ones up to a quiet period; none at the end.
    fn next(&mut self) -> Option<Vec<Step>>;
}

impl<I: Iterator<Item = Vec<Step>>> Source for I {
    fn next(&mut self) -> Option<Vec<Step>> {
        Iterator::next(self)
    }
}

/// Runs rounds on a fleet of its own. An error of the lab itself is a failure, too: whatever it was, it was made by these steps.
pub(super) fn run(
    workers: u8,
    rounds: &mut dyn Source,
    keep: Option<&str>,
    say: &(dyn Fn(&str) + Sync),
) -> Result<Result<Figures, Failure>, LabError> {
    let lab = Lab::start(&Options {
        workers,
        daemons: false,
        own_clocks: true,
        tuning: Tuning {
            network: vec![format!("quarantine = \"{REST}\""), format!("lease = \"{LEASE}\"")],
            ..Tuning::default()
        },
        ..Options::default()
    })?;
    fault::own_disks(&lab)?;
    lab.start_daemons()?;
    let api = Api::connect(&lab.controller_endpoint(), &lab.bundle("operator"))?;
    let reviver = Reviver::default();
    let strangers = Strangers::move_in(&lab)?;
    let mut run = Run {
        lab: &lab,
        operator: Operator::new(api),
        reviver: &reviver,
        strangers,
        journal: Journal::default(),
        put_away: None,
        restored: false,
        figures: Figures::default(),
        say,
    };
    while let Some(round) = rounds.next() {
        if let Err(why) = run.round(&round) {
            let step = run.figures.steps;
            let kept = keep.map(|name| keep_logs(&lab, name)).transpose()?;
            let figures = run.figures();
            return Ok(Err(Failure {
                step,
                why,
                kept,
                figures,
            }));
        }
    }
    Ok(Ok(run.figures()))
}

impl Run<'_> {
    fn figures(&self) -> Figures {
        Figures {
            changes: (self.operator.acknowledged, self.operator.refused),
            deaths: self.reviver.deaths(),
            events: self.journal.read,
            ..self.figures.clone()
        }
    }

    fn round(&mut self, steps: &[Step]) -> Result<(), String> {
        let (lab, reviver, say) = (self.lab, self.reviver, self.say);
        std::thread::scope(|scope| {
            let mut thrown = Vec::new();
            for step in steps {
                self.figures.steps += 1;
                match step {
                    step if step.is_quiet() => {}
                    step if step.is_asked() => {
                        say(&step.to_string());
                        let answer = self.ask(step)?;
                        say(&format!("# {answer}"));
                    }
                    step => {
                        say(&step.to_string());
                        *self.figures.faults.entry(kind(step)).or_default() += 1;
                        thrown.push(scope.spawn(move || fault::throw(lab, reviver, step)));
                    }
                }
            }
            for thread in thrown {
                let ended = thread
                    .join()
                    .unwrap_or_else(|_| Err(LabError::Other("a fault died".to_owned())));
                ended.map_err(|error| error.chain())?;
            }
            Ok::<(), String>(())
        })?;
        let Some(last) = steps.last().filter(|step| step.is_quiet()) else {
            return Ok(());
        };
        say(&last.to_string());
        match last {
            Step::ByHand { host, what, pick } => self.by_hand(host, *what, *pick),
            _ => self.quiet(),
        }
    }

    /// What an operator asks for, and what is done beside it.
    fn ask(&mut self, step: &Step) -> Result<String, String> {
        match step {
            Step::Gone { worker, twice } => {
                *self.figures.faults.entry("gone".to_owned()).or_default() += 1;
                lost::gone(self.lab, self.reviver, &mut self.operator, worker, *twice)
                    .or_else(|why| Ok(format!("not declared gone: {why}")))
            }
            Step::Export => {
                self.put_away = Some(lost::put_away(self.lab, &self.operator)?);
                Ok("put away".to_owned())
            }
            Step::Restore => {
                let Some(put_away) = &self.put_away else {
                    return Ok("nothing was put away".to_owned());
                };
                *self.figures.faults.entry("restore".to_owned()).or_default() += 1;
                self.restored = true;
                self.journal.restored();
                lost::restore(self.lab, self.reviver, &mut self.operator, put_away)
            }
            step => self.operator.make(step),
        }
    }

    /// Heals everything, asks the oracle and the guests.
    fn quiet(&mut self) -> Result<(), String> {
        let (slices, ready, equal) = self.settle()?;
        let strange = self.strangers.check(self.lab).map_err(words)?;
        if !strange.is_empty() {
            return Err(strange.join("\n"));
        }
        let (wrong, asked) = guests::ask(self.lab, &slices, self.figures.quiet).map_err(words)?;
        if !wrong.is_empty() {
            return Err(wrong.join("\n"));
        }
        self.figures.quiet += 1;
        self.figures.questions += asked;
        let slowest = &mut self.figures.slowest;
        *slowest = (slowest.0.max(ready), slowest.1.max(equal));
        (self.say)(&format!(
            "# holds: {} slices deployed, ready after {:.1} s, equal after {:.1} s, {asked} questions of guests",
            slices.len(),
            ready.as_secs_f64(),
            equal.as_secs_f64()
        ));
        Ok(())
    }

    /// Heals everything and waits until all is ready, answered for, told of, and as the slices say. Answers them, and how long each took.
    fn settle(&mut self) -> Result<(Vec<Slice>, Duration, Duration), String> {
        fault::heal(self.lab, self.reviver).map_err(words)?;
        self.reviver.revive_all(self.lab).map_err(words)?;
        for host in self.reviver.take_emptied() {
            self.strangers.return_to(self.lab, &host).map_err(words)?;
        }
        let start = Instant::now();
        until("everything to be ready", READY_LIMIT, || self.ready_or_wrong()).map_err(words)??;
        let ready = start.elapsed();
        let slices = self.operator.account()?;
        self.told()?;
        let start = Instant::now();
        self.await_equal(&slices)?;
        self.restored = false;
        Ok((slices, ready, start.elapsed()))
    }

    /// The journal has no gap and tells of every intent.
    fn told(&mut self) -> Result<(), String> {
        let events = self.journal.new_events(&self.operator.api)?;
        let untold = journal::untold(&self.operator.ledger.take_told(), &events);
        if untold.is_empty() {
            Ok(())
        } else {
            Err(untold.join("\n"))
        }
    }

    fn await_equal(&mut self, slices: &[Slice]) -> Result<(), String> {
        let equal = until("every host to be as the slices say", EQUAL_LIMIT, || {
            // A node may say only now what it holds back.
            self.confirm_held()?;
            let wrong = self.compare(slices).map_err(words)?;
            if wrong.is_empty() {
                Ok(())
            } else {
                Err(wrong.join("\n"))
            }
        });
        // What status says of it meanwhile is a part of what was seen.
        let status = || self.ready().err().unwrap_or_else(|| "all ready".to_owned());
        equal.map_err(|error| format!("{}\nstatus: {}", error.chain(), status()))
    }

    /// Ready; or what can only be wrong.
    fn ready_or_wrong(&mut self) -> Result<Result<(), String>, String> {
        match self.confirm_held() {
            Ok(()) => self.ready().map(Ok),
            Err(wrong) => Ok(Err(wrong)),
        }
    }

    /// Confirms what nodes hold back after a restore. What they hold back at another time is wrong at once: operators asked for it.
    fn confirm_held(&mut self) -> Result<(), String> {
        for (node, held) in self.operator.held().unwrap_or_default() {
            let names = held.keys.len();
            if !self.restored {
                return Err(format!(
                    "{node} holds {names} removals back that operators asked for: {held:?}"
                ));
            }
            if let Ok(confirmed) = self.operator.confirm(&node, &held) {
                self.figures.confirmed += confirmed;
                (self.say)(&format!("# {confirmed} removals on {node} confirmed"));
            }
        }
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        let status = self.operator.api.status().map_err(|error| error.chain())?;
        let mut waits: Vec<String> = Vec::new();
        for slice in &status.slices {
            if slice.removing || (slice.deployed_number != 0 && slice.state() != State::Ready) {
                waits.push(format!("{} is {:?}: {}", slice.name, slice.state(), slice.reason));
            }
        }
        for node in status.nodes.iter().filter(|node| !node.connected || !node.in_step) {
            waits.push(format!(
                "{} is connected {}, in step {}",
                node.name, node.connected, node.in_step
            ));
        }
        if waits.is_empty() {
            Ok(())
        } else {
            Err(waits.join("\n"))
        }
    }

    /// What is not as it should be, on all nodes.
    fn compare(&self, slices: &[Slice]) -> Result<Vec<String>, LabError> {
        let mut wrong = Vec::new();
        let ports = oracle::ports(slices);
        let gateways = gateways(self.lab)?;
        for (name, expected) in expected(self.lab.layout(), slices, super::PROBES) {
            let host = self.lab.host(&name)?;
            wrong.extend(difference(&name, &expected, &look::facts(host)?));
            if name != NETNODE {
                wrong.extend(trace::check(host, &ports, &gateways)?);
            }
        }
        Ok(wrong)
    }
}

fn words(error: LabError) -> String {
    error.chain()
}

fn kind(step: &Step) -> String {
    let value = serde_json::to_value(step).unwrap_or_default();
    let what = value["what"]
        .as_str()
        .map(|what| format!(" {what}"))
        .unwrap_or_default();
    format!("{}{what}", value["do"].as_str().unwrap_or_default())
}

/// MACs of the gateways, which the API does not show, by VLAN.
fn gateways(lab: &Lab) -> Result<BTreeMap<u16, String>, LabError> {
    let listed = lab.host(NETNODE)?.must(&["ip", "-j", "link"])?;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap_or_default();
    let gateway = |link: &serde_json::Value| {
        let vlan = link["ifname"].as_str()?.strip_prefix("gw_vlan")?.parse().ok()?;
        Some((vlan, link["address"].as_str()?.to_owned()))
    };
    Ok(listed.as_array().into_iter().flatten().filter_map(gateway).collect())
}

/// The logs outlive the lab.
fn keep_logs(lab: &Lab, name: &str) -> Result<PathBuf, LabError> {
    let folder = std::env::temp_dir().join(format!("trunkline-campaign-{name}-{}", std::process::id()));
    for host in lab.hosts() {
        let to = folder.join(host.name());
        std::fs::create_dir_all(&to).map_err(LabError::io(format!("cannot make {}", to.display())))?;
        let logs = std::fs::read_dir(host.folder().join("log"))
            .into_iter()
            .flatten()
            .flatten();
        for log in logs.filter(|log| log.path().is_file()) {
            let _ = std::fs::copy(log.path(), to.join(log.file_name()));
        }
    }
    Ok(folder)
}
