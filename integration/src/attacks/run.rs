//! Runs the table: what must pass, what must not, the storms, and what must pass once more.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use trunkline_proto::wire::Slice;

use super::attempts::{Attempt, Numbers, attempts};
use super::burst::Burst;
use super::judge::{Verdict, judge};
use super::report::Outcome;
use super::sniff::Ears;
use super::table::{
    DEEPER, DHCP_IN_ANOTHERS_NAME, DHCP_TAKEN_AWAY, Expect, FRAGMENTS, HONEST, HOSTILE, PARTS, Rule, STORMS, TAGS,
    UPLINK,
};
use super::world::{Kind as Stand, World};
use crate::LabError;
use crate::guest::{Guest, Kind};
use crate::lab::layout::NETNODE;
use crate::lab::{Lab, programs};
use crate::wait::until;

const LEASE_LIMIT: Duration = Duration::from_secs(60);
const SEND_LIMIT: Duration = Duration::from_secs(60);
/// After so long without a new frame nothing more comes.
const QUIET: Duration = Duration::from_millis(400);
const QUIET_LIMIT: Duration = Duration::from_secs(20);
/// Counters go to the controller every ten seconds.
const SHOW_LIMIT: Duration = Duration::from_secs(25);
/// A frame may be lost on a busy machine: what must pass gets as many tries, and so does what never left its guest.
const TRIES: usize = 4;
/// What the console of a real machine takes in one line, and the kernel as arguments.
const CONSOLE_LINE: usize = 3000;
const ARGUMENTS: usize = 100_000;

/// What the DHCP servers write down, a folder for each VLAN.
const LEASES: &str = "/var/lib/trunkline-netnode/dhcp";
const UNSENT: &str = "never left the guest, or too slowly";
const UNHEARD: &str = "sniffers lost frames";

type Guests = BTreeMap<String, Guest>;
/// What each is told to send.
type Words<'a> = BTreeMap<&'a str, Vec<String>>;

/// Everything that a run needs.
pub struct Attack<'a> {
    lab: &'a Lab,
    guests: &'a Guests,
    world: World,
    ears: Ears,
    numbers: Numbers,
}

impl<'a> Attack<'a> {
    /// Waits for the guests' leases, looks at the fleet and begins to listen.
    pub fn prepare(lab: &'a Lab, slices: &[Slice], guests: &'a Guests) -> Result<Self, LabError> {
        let world = World::look(lab, slices)?;
        for nic in world.nics.iter().filter(|nic| nic.vlan.is_some()) {
            find(guests, &nic.guest)?.await_lease(&nic.name, LEASE_LIMIT)?;
        }
        let ears = Ears::start(lab)?;
        let numbers = Numbers::default();
        Ok(Self {
            lab,
            guests,
            world,
            ears,
            numbers,
        })
    }

    /// The whole table. An error means that it could not be tried; a row that does not hold is an outcome.
    pub fn run(&mut self) -> Result<Vec<Outcome>, LabError> {
        let mut outcomes = self.wave(HONEST, "")?;
        outcomes.extend(self.hostile(|_| true)?);
        outcomes.push(self.storms_show()?);
        outcomes.extend(self.wave(HONEST, ", afterwards")?);
        Ok(outcomes)
    }

    /// Rows that must not pass, those that are wanted.
    pub fn hostile(&mut self, wanted: impl Fn(&str) -> bool) -> Result<Vec<Outcome>, LabError> {
        let some = |rows: &[Rule]| rows.iter().filter(|row| wanted(row.id)).copied().collect::<Vec<_>>();
        let mut outcomes = self.hostile_wave(&some(&[HOSTILE, DEEPER].concat()))?;
        outcomes.extend(self.wave(&some(PARTS), "")?);
        outcomes.extend(self.wave(&some(UPLINK), "")?);
        outcomes.extend(self.wave(&some(TAGS), "")?);
        outcomes.extend(self.wave(&some(STORMS), "")?);
        outcomes.extend(self.fragments(&some(FRAGMENTS))?);
        Ok(outcomes)
    }

    /// What was asked of the DHCP server in others' names shows in its leases only.
    fn hostile_wave(&mut self, rules: &[Rule]) -> Result<Vec<Outcome>, LabError> {
        let rows: [(&str, &[Stand]); 2] = [
            (DHCP_IN_ANOTHERS_NAME, &[Stand::Internet]),
            (DHCP_TAKEN_AWAY, &[Stand::Secure, Stand::Protected]),
        ];
        let before = rows.map(|(_, kinds)| self.leases(kinds));
        let mut outcomes = self.wave(rules, "")?;
        let after = rows.map(|(_, kinds)| self.leases(kinds));
        for ((name, _), (before, after)) in rows.into_iter().zip(before.into_iter().zip(after)) {
            let (before, after) = (before?, after?);
            let Some(row) = outcomes.iter_mut().find(|outcome| outcome.name == name) else {
                continue;
            };
            let lost = before.iter().filter(|lease| !after.contains(*lease));
            let lost = lost.map(|lease| format!("the lease of {lease} is no more"));
            let new = after.iter().filter(|lease| !before.contains(*lease));
            row.fail(lost.chain(new.map(|lease| format!("{lease} is a new lease"))));
        }
        Ok(outcomes)
    }

    /// Parts that never become whole fill what all guests share; another's packets in parts pass nevertheless.
    fn fragments(&mut self, rules: &[Rule]) -> Result<Vec<Outcome>, LabError> {
        let mut outcomes = self.wave(rules, "")?;
        for row in &mut outcomes {
            let twin: Vec<Rule> = HONEST.iter().filter(|rule| rule.id == row.twin).copied().collect();
            let meanwhile = self.wave(&twin, "")?;
            let faults = meanwhile.into_iter().flat_map(|outcome| outcome.faults);
            row.fail(faults.map(|fault| format!("afterwards {fault}")));
        }
        Ok(outcomes)
    }

    /// Whose lease is what on the VLANs of these, and by which client id: all but the time.
    fn leases(&self, kinds: &[Stand]) -> Result<BTreeSet<String>, LabError> {
        let here = self.world.nics.iter().filter(|nic| kinds.contains(&nic.kind));
        let vlans: BTreeSet<u16> = here.filter_map(|nic| nic.vlan).collect();
        let mut leases = BTreeSet::new();
        for vlan in vlans {
            let path = self.lab.host(NETNODE)?.path(&format!("{LEASES}/vlan{vlan}/leases"));
            let text =
                std::fs::read_to_string(&path).map_err(LabError::io(format!("cannot read {}", path.display())))?;
            let lease = |line: &str| line.split_once(' ').map(|(_, lease)| lease.to_owned());
            leases.extend(text.lines().filter_map(lease));
        }
        Ok(leases)
    }

    /// After the floods the operator is told which port sent too much.
    fn storms_show(&mut self) -> Result<Outcome, LabError> {
        let limited = STORMS.iter().filter(|row| row.expect == Expect::Limited);
        let flood = limited.flat_map(|row| attempts(row, &self.world, &mut self.numbers));
        // The newest: a port is forgotten when its limit has let everything pass for a while.
        let Some(tap) = flood.map(|attempt| attempt.from.tap).last() else {
            return Err(LabError::Other("nobody sends a flood".to_owned()));
        };
        let mut client = Command::new(programs::find("trunkctl")?);
        client.args(["node", "show", &tap.host, "--output", "json"]);
        client.env("TRUNKLINE_CONTROLLER", self.lab.controller_endpoint());
        client.env("TRUNKLINE_BUNDLE", self.lab.bundle("operator"));
        let shown = until("the storm to show", SHOW_LIMIT, || {
            let output = client.output().map_err(|error| error.to_string())?;
            let node = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
            if dropped(&node, &tap.interface) > 0 {
                Ok(())
            } else {
                Err(format!("nothing of {} on {}", tap.interface, tap.host))
            }
        });
        let faults = match shown {
            Ok(()) => Vec::new(),
            Err(LabError::Timeout { seen, .. }) => vec![seen],
            Err(error) => return Err(error),
        };
        Ok(Outcome {
            name: "floods show in the node's status".to_owned(),
            expected: Expect::Limited,
            from: &[Stand::Protected, Stand::Internet],
            twin: "broadcasts below the limit",
            tried: 1,
            leaks: faults.len(),
            ok: faults.is_empty(),
            faults,
        })
    }

    fn wave(&mut self, rules: &[Rule], suffix: &str) -> Result<Vec<Outcome>, LabError> {
        let mut open: Vec<(usize, Attempt)> = Vec::new();
        for (number, rule) in rules.iter().enumerate() {
            let made = attempts(rule, &self.world, &mut self.numbers);
            open.extend(made.into_iter().map(|attempt| (number, attempt)));
        }
        if rules.is_empty() {
            return Ok(Vec::new());
        }
        let mut counts = vec![0; rules.len()];
        open.iter().for_each(|(number, _)| counts[*number] += 1);
        let mut faults: Vec<Vec<String>> = vec![Vec::new(); rules.len()];
        let mut leaks = vec![0; rules.len()];
        for turn in 1..=TRIES {
            self.ears.forget_arp();
            self.send(&open)?;
            self.ears.await_quiet(QUIET, QUIET_LIMIT)?;
            let deaf = self.ears.lost()?;
            let mut again = Vec::new();
            for (number, attempt) in open {
                let Some(rule) = rules.get(number) else { continue };
                let verdict = match judge(&attempt, rule.expect, &self.world, &self.ears) {
                    // What was heard has passed. What was not may have.
                    Verdict::Holds if !deaf.is_empty() && !rule.expect.passes() => Verdict::NotHeard,
                    Verdict::Broken(_) if !deaf.is_empty() && rule.expect.passes() => Verdict::NotHeard,
                    verdict => verdict,
                };
                let unproven = matches!(verdict, Verdict::NotSent | Verdict::NotHeard) || rule.expect.passes();
                match verdict {
                    Verdict::Holds => {}
                    _ if unproven && turn < TRIES => again.push((number, attempt)),
                    Verdict::NotSent => faults[number].push(said(&attempt, UNSENT)),
                    Verdict::NotHeard => faults[number].push(said(&attempt, &format!("{UNHEARD}: {deaf:?}"))),
                    Verdict::Broken(what) => {
                        faults[number].push(said(&attempt, &what));
                        leaks[number] += 1;
                    }
                }
            }
            open = again;
            if open.is_empty() {
                break;
            }
            self.ears.forget(
                open.iter()
                    .flat_map(|(_, attempt)| attempt.id..attempt.id + attempt.ids),
            );
        }
        let rows = rules.iter().zip(counts).zip(faults.into_iter().zip(leaks));
        Ok(rows
            .map(|((rule, tried), (faults, leaks))| Outcome::new(rule, suffix, tried, faults, leaks))
            .collect())
    }

    /// First what others send that is attacked; then every guest sends what is its own, each in the table's order; then
    /// what others send on top.
    fn send(&self, open: &[(usize, Attempt)]) -> Result<(), LabError> {
        let (mut others, mut words, mut after): (Words<'_>, Words<'_>, Words<'_>) = Default::default();
        for (_, attempt) in open {
            let words = words.entry(attempt.from.guest.as_str()).or_default();
            words.extend(attempt.before.iter().chain([&attempt.burst]).map(Burst::to_string));
            for (guest, burst) in &attempt.others {
                others.entry(guest).or_default().push(burst.to_string());
            }
            for (guest, burst) in &attempt.others_after {
                after.entry(guest).or_default().push(burst.to_string());
            }
        }
        self.send_at_once(others)?;
        self.send_at_once(words)?;
        self.send_at_once(after)
    }

    /// All guests at once.
    fn send_at_once(&self, words: Words<'_>) -> Result<(), LabError> {
        std::thread::scope(|scope| {
            let sending: Vec<_> = words
                .into_iter()
                .map(|(guest, words)| scope.spawn(move || self.inject(guest, &words)))
                .collect();
            sending.into_iter().try_for_each(crate::demo::joined)
        })
    }

    /// Runs the program inside the guest, or on a host, as often as its words need.
    fn inject(&self, name: &str, words: &[String]) -> Result<(), LabError> {
        // A guest's has its slice before it.
        let on_host = !name.contains('/');
        let machine = !on_host && find(self.guests, name)?.kind() == Kind::Machine;
        let (program, room) = if machine {
            ("/bin/trunkline-frames".to_owned(), CONSOLE_LINE)
        } else {
            (programs::find("trunkline-frames")?.display().to_string(), ARGUMENTS)
        };
        let mut rest = words;
        while !rest.is_empty() {
            let mut length = 0;
            let fits = rest.iter().take_while(|word| {
                length += word.len() + 3;
                length <= room
            });
            let (now, later) = rest.split_at(fits.count().max(1));
            let argv: Vec<&str> = [program.as_str()]
                .into_iter()
                .chain(now.iter().map(String::as_str))
                .collect();
            let output = if on_host {
                self.lab.host(name)?.exec_for(&argv, SEND_LIMIT)?
            } else {
                find(self.guests, name)?.exec_for(&argv, SEND_LIMIT)?
            };
            if !output.ok() {
                let said = output.stderr + &output.stdout;
                return Err(LabError::Other(format!("{name} could not send: {said}")));
            }
            rest = later;
        }
        Ok(())
    }
}

fn find<'a>(guests: &'a Guests, name: &str) -> Result<&'a Guest, LabError> {
    let found = guests.get(name);
    found.ok_or_else(|| LabError::Other(format!("no guest of {name} runs")))
}

fn said(attempt: &Attempt, what: &str) -> String {
    format!("{} -> {}: {what}", attempt.from.full(), attempt.to)
}

/// Frames of a port that were dropped over its limit, as the node reported them.
fn dropped(value: &Value, port: &str) -> u64 {
    match value {
        Value::Object(fields) if fields.get("port").and_then(Value::as_str) == Some(port) => {
            fields.get("dropped").and_then(Value::as_u64).unwrap_or(0)
        }
        Value::Object(fields) => fields.values().map(|value| dropped(value, port)).sum(),
        Value::Array(values) => values.iter().map(|value| dropped(value, port)).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_frames_are_found_wherever_the_port_stands() {
        let node = serde_json::json!({ "resources": [
            { "name": "flows_vlan110", "observed": { "storms": [{ "port": "tap_1_eth1", "dropped": 7 }] } },
            { "name": "tap_2_eth1", "observed": {} },
        ] });
        assert_eq!(dropped(&node, "tap_1_eth1"), 7);
        assert_eq!(dropped(&node, "tap_2_eth1"), 0);
    }
}
