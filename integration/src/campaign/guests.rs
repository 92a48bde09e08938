//! Guests of a sample of the VMs: they reach exactly whom they should.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use trunkline_proto::wire::Slice;

use super::oracle::{INTERNET_VLAN, Policy, Port, ports};
use crate::LabError;
use crate::demo::joined;
use crate::guest::{Guest, Kind, Spec};
use crate::lab::layout::{INTERNET_ADDRESS, NETNODE};
use crate::lab::{Host, Lab};
use crate::wait::until;

const LEASE_LIMIT: Duration = Duration::from_secs(60);
const RELEASE_LIMIT: Duration = Duration::from_secs(2);
/// In every so manieth quiet period guests are switched off without a word.
const SWITCHED_OFF: usize = 4;

/// One question and the answer that the slices give.
struct Question {
    from: String,
    to: Ipv4Addr,
    what: String,
    answer: bool,
}

/// Starts guests for the VMs of one slice and asks; what was answered otherwise, and how many questions there were.
pub(super) fn ask(lab: &Lab, slices: &[Slice], sample: usize) -> Result<(Vec<String>, usize), LabError> {
    let linked: Vec<&Slice> = slices.iter().filter(|slice| !slice.links.is_empty()).collect();
    let Some(slice) = linked.get(sample % linked.len().max(1)) else {
        return Ok((Vec::new(), 0));
    };
    let all = ports(slices);
    let guests = start(lab, slice)?;
    let mut wrong = addresses(lab, slice, &all, &guests)?;
    let questions = questions(slice, &all);
    let asked = questions.len();
    let answers: Result<Vec<Option<String>>, LabError> = std::thread::scope(|scope| {
        let ask = |question: Question| {
            let guest = guests.get(&question.from);
            scope.spawn(move || {
                let guest = guest.ok_or_else(|| LabError::Other("a guest is missing".to_owned()))?;
                let reached = guest.ping(question.to)?;
                let no = if reached { "reaches" } else { "does not reach" };
                Ok((reached != question.answer).then(|| format!("{} {no} {}", question.from, question.what)))
            })
        };
        let asking: Vec<_> = questions.into_iter().map(ask).collect();
        asking.into_iter().map(joined).collect()
    });
    wrong.extend(answers?.into_iter().flatten());
    // Who is only switched off keeps an address from others until the lease ends, which takes its time.
    if !sample.is_multiple_of(SWITCHED_OFF) {
        release(lab, &all, &guests)?;
    }
    Ok((wrong, asked))
}

/// Guests give their leases back, as those do that are shut down in order.
fn release(lab: &Lab, all: &[Port], guests: &BTreeMap<String, Guest>) -> Result<(), LabError> {
    for guest in guests.values() {
        let worker = lab.host(&guest.spec().worker)?;
        for pid in clients(worker, guest, "udhcpc")? {
            worker.exec(&["kill", "-USR2", &pid])?;
        }
    }
    let held = || -> Result<String, LabError> {
        let files = "cat /var/lib/trunkline-netnode/dhcp/*/leases 2>/dev/null";
        Ok(lab.host(NETNODE)?.exec(&["sh", "-c", files])?.stdout)
    };
    let of_guests = |port: &&Port| guests.contains_key(&port.vm);
    // One that is not heard is as good as one that is switched off.
    let _ = until("leases to be given back", RELEASE_LIMIT, || {
        let held = held().map_err(|error| error.chain())?;
        if all
            .iter()
            .filter(of_guests)
            .any(|port| held.contains(&port.interface.mac))
        {
            Err(held)
        } else {
            Ok(())
        }
    });
    Ok(())
}

fn start(lab: &Lab, slice: &Slice) -> Result<BTreeMap<String, Guest>, LabError> {
    std::thread::scope(|scope| {
        let start = |spec: Spec| {
            scope.spawn(move || {
                let name = spec.name.clone();
                Guest::start(lab.host(&spec.worker)?, spec, Kind::Namespace).map(|guest| (name, guest))
            })
        };
        let starting: Vec<_> = slice.vms.iter().map(Spec::of).map(start).collect();
        starting.into_iter().map(joined).collect()
    })
}

/// By DHCP where there is a server, which must give the reserved address; by hand elsewhere.
fn addresses(
    lab: &Lab,
    slice: &Slice,
    all: &[Port],
    guests: &BTreeMap<String, Guest>,
) -> Result<Vec<String>, LabError> {
    let mut wrong = Vec::new();
    for port in all.iter().filter(|port| port.vlan != 0) {
        let Some(guest) = guests.get(&port.vm) else { continue };
        let interface = &port.interface;
        let link = slice.links.iter().find(|link| link.vlan == u32::from(port.vlan));
        if link.is_some_and(|link| !link.dhcp) {
            let address = format!("{}/{}", interface.address, interface.prefix_len);
            end_client(lab.host(&port.worker)?, guest, &interface.name)?;
            let output = guest.exec(&["ip", "address", "replace", &address, "dev", &interface.name])?;
            if !output.ok() {
                wrong.push(format!("{} {}: no address: {}", port.vm, interface.name, output.stderr));
            }
            continue;
        }
        match guest.await_lease(&interface.name, LEASE_LIMIT) {
            Ok(lease) if lease.address.to_string() == interface.address => {}
            Ok(lease) => wrong.push(format!(
                "{} {} was leased {} and not {}",
                port.vm, interface.name, lease.address, interface.address
            )),
            Err(error) => wrong.push(error.chain()),
        }
    }
    Ok(wrong)
}

/// A DHCP client that hears no server takes the address away that was given by hand.
fn end_client(worker: &Host, guest: &Guest, interface: &str) -> Result<(), LabError> {
    for pid in clients(worker, guest, &format!("-i {interface} "))? {
        worker.exec(&["kill", "-KILL", &pid])?;
    }
    Ok(())
}

/// DHCP clients of a guest, those with these words in their arguments.
fn clients(worker: &Host, guest: &Guest, words: &str) -> Result<Vec<String>, LabError> {
    let listed = worker.must(&["ps", "-eo", "pid,args"])?;
    let of = format!("/guest-{}/", guest.spec().vm_id);
    let is_it = |line: &&str| line.contains("udhcpc") && line.contains(words) && line.contains(&of);
    let pids = listed
        .lines()
        .filter(is_it)
        .filter_map(|line| line.split_whitespace().next());
    Ok(pids.map(str::to_owned).collect())
}

fn questions(slice: &Slice, all: &[Port]) -> Vec<Question> {
    let mut questions = Vec::new();
    let of_slice = |port: &&Port| port.vm.split('/').next() == Some(slice.name.as_str());
    for port in all.iter().filter(of_slice).filter(|port| port.vlan != 0) {
        let mut ask = |to: &str, what: String, answer| {
            if let Ok(to) = to.parse() {
                let from = port.vm.clone();
                questions.push(Question { from, to, what, answer });
            }
        };
        let gateway = &port.interface.gateway;
        ask(
            gateway,
            format!("its gateway {gateway} on {}", port.interface.name),
            true,
        );
        for peer in all.iter().filter(|peer| peer.vlan == port.vlan && peer.vm != port.vm) {
            let running = of_slice(&peer);
            let answer = running && port.policy != Policy::Protected;
            ask(
                &peer.interface.address,
                format!("{} {} over VLAN {}", peer.vm, peer.interface.name, port.vlan),
                answer,
            );
        }
    }
    for vm in &slice.vms {
        let name = format!("{}/{}", slice.name, vm.name);
        let mut ask = |to: Ipv4Addr, what: String, answer| {
            let from = name.clone();
            questions.push(Question { from, to, what, answer });
        };
        ask(INTERNET_ADDRESS, "the internet".to_owned(), vm.internet_enabled);
        // Nobody else's gateway answers, though it is there.
        let foreign = all
            .iter()
            .find(|port| !of_slice(port) && port.vlan != 0 && port.vlan != INTERNET_VLAN);
        if let Some(to) = foreign.and_then(|port| port.interface.gateway.parse().ok()) {
            ask(to, format!("the gateway {to} of another slice"), false);
        }
    }
    questions
}
