//! Flows by what they mean: the switch itself says where a sample frame would go (`ofproto/trace`), and that must be exactly where the
//! slices say. Which rules lead there does not matter.

use std::collections::{BTreeMap, BTreeSet};

use super::oracle::{PROBE, Policy, Port};
use crate::LabError;
use crate::lab::Host;

const UPLINK: &str = "trunk0";
const EVERYBODY: &str = "ff:ff:ff:ff:ff:ff";
const NOBODY: &str = "52:54:00:ff:ff:01";
/// Nobody's VLAN here, unless a pool grew that far.
const FOREIGN: u16 = 3998;

/// Where a frame leaves: the port, and the tag that it has there.
type Ways = BTreeSet<(String, Option<u16>)>;

/// One sample and where it must go.
struct Sample {
    what: String,
    frame: String,
    ways: Ways,
}

/// Sends samples in mind through a worker's switch; what went elsewhere. `gateways` are the gateways' MACs by VLAN.
pub(super) fn check(host: &Host, all: &[Port], gateways: &BTreeMap<u16, String>) -> Result<Vec<String>, LabError> {
    let numbers = numbers(host)?;
    let mut wrong = Vec::new();
    for sample in samples(host.name(), all, gateways) {
        let argv = ["ovs-appctl", "--timeout=5", "ofproto/trace", "br-int", &sample.frame];
        let answer = host.exec(&argv)?;
        let (name, what) = (host.name(), &sample.what);
        match actions(&answer.stdout).map(|actions| ways(actions, tag_of(&sample.frame), &numbers)) {
            Some(ways) if ways == sample.ways => {}
            Some(ways) => wrong.push(format!(
                "{name}: {what} goes to {ways:?} and not to {:?} ({})",
                sample.ways, sample.frame
            )),
            None => wrong.push(format!("{name}: {what} cannot be traced: {}", answer.stderr.trim())),
        }
    }
    Ok(wrong)
}

fn samples(worker: &str, all: &[Port], gateways: &BTreeMap<u16, String>) -> Vec<Sample> {
    let here: Vec<&Port> = all.iter().filter(|port| port.worker == worker).collect();
    let mut samples: Vec<Sample> = here
        .iter()
        .flat_map(|port| from_guest(port, &here, gateways.get(&port.vlan)))
        .collect();
    let vlans: BTreeMap<u16, Policy> = here
        .iter()
        .filter(|port| port.vlan != 0)
        .map(|port| (port.vlan, port.policy))
        .collect();
    for (vlan, policy) in vlans {
        samples.extend(from_uplink(vlan, policy, &here, gateways.get(&vlan)));
    }
    if !here.is_empty() {
        let frame = format!("in_port={UPLINK},dl_vlan={FOREIGN},dl_src={NOBODY},dl_dst={EVERYBODY}");
        samples.push(drop_of("a frame of a VLAN that is not this worker's", frame));
    }
    samples
}

fn drop_of(what: impl Into<String>, frame: String) -> Sample {
    Sample {
        what: what.into(),
        frame,
        ways: Ways::new(),
    }
}

/// Local guests of a VLAN, without tags.
fn guests(here: &[&Port], vlan: u16) -> Ways {
    let of_it = here.iter().filter(|port| port.vlan == vlan);
    of_it.map(|port| (port.interface.tap.clone(), None)).collect()
}

fn arp(mac: &str, address: &str, asks_for: &str) -> String {
    format!(
        "dl_src={mac},dl_dst={EVERYBODY},dl_type=0x0806,arp_op=1,arp_sha={mac},arp_spa={address},arp_tpa={asks_for}"
    )
}

fn from_guest(port: &Port, here: &[&Port], gateway: Option<&String>) -> Vec<Sample> {
    let interface = &port.interface;
    let (tap, mac, address) = (&interface.tap, &interface.mac, &interface.address);
    let who = format!("of {} {}", port.vm, interface.name);
    let frame = |rest: String| format!("in_port={tap},{rest}");
    let tagged = frame(format!("dl_vlan={FOREIGN},dl_src={mac},dl_dst={EVERYBODY}"));
    let mut samples = vec![
        drop_of(format!("a tagged frame {who}"), tagged),
        drop_of(
            format!("a probe frame {who}"),
            frame(format!("dl_src={mac},dl_dst={EVERYBODY},dl_type=0x88b5")),
        ),
    ];
    if port.vlan == 0 {
        let lonely = frame(arp(mac, "10.60.7.77", "10.60.7.1"));
        samples.push(drop_of(format!("an ARP request {who}, which leads nowhere"), lonely));
        return samples;
    }
    if port.policy != Policy::Open {
        let forged = frame(arp(NOBODY, address, &interface.gateway));
        samples.push(drop_of(format!("a frame with a forged MAC {who}"), forged));
        let forged = frame(arp(mac, "10.99.99.99", &interface.gateway));
        samples.push(drop_of(format!("ARP with a forged address {who}"), forged));
    }
    let uplink = (UPLINK.to_owned(), Some(port.vlan));
    let mut everybody = guests(here, port.vlan);
    everybody.remove(&(tap.clone(), None));
    everybody.insert(uplink.clone());
    let ways = if port.policy == Policy::Protected {
        Ways::from([uplink.clone()])
    } else {
        everybody
    };
    samples.push(Sample {
        what: format!("an ARP request for the gateway {who}"),
        frame: frame(arp(mac, address, &interface.gateway)),
        ways,
    });
    if port.policy == Policy::Protected {
        let peers = here
            .iter()
            .filter(|other| other.vlan == port.vlan && other.interface.tap != *tap);
        samples.extend(peers.map(|peer| {
            let to = &peer.interface;
            let rest = format!(
                "dl_src={mac},dl_dst={},dl_type=0x0800,nw_src={address},nw_dst={}",
                to.mac, to.address
            );
            drop_of(format!("a frame {who} to {}, which is set apart", peer.vm), frame(rest))
        }));
        samples.extend(gateway.map(|gateway| Sample {
            what: format!("a frame {who} to the gateway"),
            frame: frame(format!(
                "dl_src={mac},dl_dst={gateway},dl_type=0x0800,nw_src={address},nw_dst={}",
                interface.gateway
            )),
            ways: Ways::from([uplink]),
        }));
    }
    samples
}

fn from_uplink(vlan: u16, policy: Policy, here: &[&Port], gateway: Option<&String>) -> Vec<Sample> {
    let frame = |rest: &str| format!("in_port={UPLINK},dl_vlan={vlan},{rest}");
    let somebody = arp(NOBODY, "10.99.99.99", "10.99.99.98");
    let mut samples = vec![Sample {
        what: format!("a broadcast of VLAN {vlan} from the uplink"),
        frame: frame(&somebody),
        ways: if policy == Policy::Protected {
            Ways::new()
        } else {
            guests(here, vlan)
        },
    }];
    if super::PROBES {
        samples.push(Sample {
            what: format!("a probe frame of VLAN {vlan}"),
            frame: frame(&format!("dl_src={NOBODY},dl_dst={EVERYBODY},dl_type=0x88b5")),
            ways: Ways::from([(PROBE.to_owned(), Some(vlan))]),
        });
    }
    let Some(gateway) = gateway.filter(|_| policy == Policy::Protected) else {
        return samples;
    };
    samples.extend(here.iter().filter(|port| port.vlan == vlan).map(|port| {
        let (mac, address) = (&port.interface.mac, &port.interface.address);
        Sample {
            what: format!("the gateway's frame for {} {}", port.vm, port.interface.name),
            frame: frame(&format!(
                "dl_src={gateway},dl_dst={mac},dl_type=0x0800,nw_src={},nw_dst={address}",
                port.interface.gateway
            )),
            ways: Ways::from([(port.interface.tap.clone(), None)]),
        }
    }));
    samples
}

/// Names of the ports by the datapath's numbers.
fn numbers(host: &Host) -> Result<BTreeMap<u32, String>, LabError> {
    Ok(parse_numbers(&host.must(&[
        "ovs-appctl",
        "--timeout=5",
        "dpif/show",
    ])?))
}

fn parse_numbers(text: &str) -> BTreeMap<u32, String> {
    let port = |line: &str| {
        let (name, rest) = line.trim().split_once(' ')?;
        let number = rest.split_once('/')?.1.split(':').next()?.parse().ok()?;
        Some((number, name.to_owned()))
    };
    text.lines().filter_map(port).collect()
}

fn actions(trace: &str) -> Option<&str> {
    trace
        .lines()
        .filter_map(|line| line.strip_prefix("Datapath actions: "))
        .next_back()
}

fn tag_of(frame: &str) -> Option<u16> {
    let rest = frame.split_once("dl_vlan=")?.1;
    rest.split(',').next()?.parse().ok()
}

/// Follows the actions: what is not understood is a way of its own, which nobody expects.
fn ways(actions: &str, mut tag: Option<u16>, numbers: &BTreeMap<u32, String>) -> Ways {
    let mut ways = Ways::new();
    for action in split(actions) {
        if let Ok(number) = action.parse::<u32>() {
            let name = numbers
                .get(&number)
                .cloned()
                .unwrap_or_else(|| format!("port {number}"));
            ways.insert((name, tag));
        } else if let Some(rest) = action.strip_prefix("push_vlan(vid=") {
            tag = rest.split([',', ')']).next().and_then(|vlan| vlan.parse().ok());
        } else if action == "pop_vlan" {
            tag = None;
        } else if action != "drop" && !action.starts_with("meter(") {
            ways.insert((action.to_owned(), tag));
        }
    }
    ways
}

/// Splits at commas that are in no brackets.
fn split(actions: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0_i32, 0, Vec::new());
    for (at, each) in actions.char_indices() {
        match each {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(actions[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(actions[start..].trim());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_followed_with_their_tags() {
        let numbers = parse_numbers(
            "netdev@ovs-netdev: hit:0 missed:1\n  br-int:\n    tap_1_eth1 6/3: (system)\n    trunk0 1/1: (system)\n",
        );
        let to = |name: &str, tag| (name.to_owned(), tag);
        let seen = ways("meter(4),3,push_vlan(vid=120,pcp=0),1", None, &numbers);
        assert_eq!(seen, Ways::from([to("tap_1_eth1", None), to("trunk0", Some(120))]));
        assert_eq!(
            ways("pop_vlan,3", Some(120), &numbers),
            Ways::from([to("tap_1_eth1", None)])
        );
        assert_eq!(ways("drop", None, &numbers), Ways::new());
        assert_eq!(
            ways("trunc(5),9", None, &numbers).len(),
            2,
            "nothing strange is left out"
        );
    }

    #[test]
    fn the_last_actions_of_a_trace_count() {
        assert_eq!(actions("bridge\nDatapath actions: drop\n"), Some("drop"));
        assert_eq!(actions("nothing"), None);
    }
}
