//! Faults of the network between the hosts: what a switch, a cable or a wrong setting there does to frames.
//!
//! All frames between hosts cross the bridges of the host `fabric`, so that is where they are dropped: each fault is one
//! chain of nftables rules there. The hosts see nothing but missing frames; no interface goes down.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Lab;
use super::host::Host;
use super::layout::{CONTROLLER, FABRIC, Layout};
use crate::LabError;

/// The table that holds one chain for each fault.
const TABLE: &str = "faults";
/// What a switch may carry at least, and what the lab's can carry at most.
const SIZES: std::ops::RangeInclusive<u32> = 68..=9216;
const VLANS: std::ops::RangeInclusive<u16> = 1..=4094;

/// Something wrong between the hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fault {
    /// A switch port that does not have a VLAN.
    VlanDrop {
        /// The VLAN.
        vlan: u16,
        /// Host on that port.
        host: String,
    },
    /// Frames of the trunk pass in one direction only.
    OneWay {
        /// Whose frames are lost.
        from: String,
        /// On the way to whom.
        to: String,
        /// Of one VLAN; of all, and untagged ones, when absent.
        vlan: Option<u16>,
    },
    /// A switch port with a small MTU.
    Mtu {
        /// Host on that port.
        host: String,
        /// Bytes of payload that still pass.
        size: u32,
    },
    /// A host that others do not reach.
    Partition {
        /// The host.
        host: String,
        /// Who does not.
        from: PartedFrom,
        /// What it is sent arrives; only what it sends is lost.
        one_way: bool,
    },
}

/// From whom a host is parted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartedFrom {
    /// From the controller; its trunk works.
    Controller,
    /// From all hosts, on both networks.
    All,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VlanDrop { vlan, host } => write!(f, "VLAN {vlan} does not pass to and from {host}"),
            Self::OneWay { from, to, vlan: None } => write!(f, "no frame of the trunk passes {from} -> {to}"),
            Self::OneWay {
                from,
                to,
                vlan: Some(vlan),
            } => write!(f, "VLAN {vlan} does not pass {from} -> {to}"),
            Self::Mtu { host, size } => write!(f, "more than {size} bytes do not pass to and from {host}"),
            Self::Partition { host, from, one_way } => {
                let whom = match from {
                    PartedFrom::Controller => "the controller",
                    PartedFrom::All => "all hosts",
                };
                if *one_way {
                    write!(f, "{host} is heard no more by {whom}")
                } else {
                    write!(f, "{host} is parted from {whom}")
                }
            }
        }
    }
}

/// A fault that stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its number in this lab.
    pub id: u32,
    /// What is wrong.
    pub fault: Fault,
    /// Frames that it has dropped.
    pub dropped: u64,
}

/// The faults of a lab by number.
#[derive(Debug, Default)]
pub(super) struct Faults {
    last: u32,
    standing: BTreeMap<u32, Fault>,
}

impl Lab {
    /// Makes a fault; its number, for healing it. One that stands already is not made twice.
    pub fn fault(&self, fault: Fault) -> Result<u32, LabError> {
        fault.check(self.layout())?;
        let mut faults = super::lock(&self.faults);
        if let Some((id, _)) = faults.standing.iter().find(|(_, standing)| **standing == fault) {
            return Ok(*id);
        }
        let id = faults.last + 1;
        let fabric = self.host(FABRIC)?;
        load(fabric, self.folder(), &script(id, &fault))?;
        faults.last = id;
        faults.standing.insert(id, fault);
        Ok(id)
    }

    /// Heals one fault, or all; those that were.
    pub fn heal(&self, id: Option<u32>) -> Result<Vec<Standing>, LabError> {
        let mut faults = super::lock(&self.faults);
        let mut healed = self.listed(&faults)?;
        if let Some(id) = id {
            let all: Vec<String> = healed.iter().map(|standing| standing.id.to_string()).collect();
            healed.retain(|standing| standing.id == id);
            if healed.is_empty() {
                let known = match all.as_slice() {
                    [] => "none stands".to_owned(),
                    all => format!("there are: {}", all.join(" ")),
                };
                return Err(LabError::Other(format!("there is no fault {id}; {known}")));
            }
        }
        let lines: Vec<String> = healed
            .iter()
            .map(|standing| format!("delete chain bridge {TABLE} {}\n", chain(standing.id)))
            .collect();
        load(self.host(FABRIC)?, self.folder(), &lines.concat())?;
        for standing in &healed {
            faults.standing.remove(&standing.id);
        }
        Ok(healed)
    }

    /// The faults that stand, oldest first, and what they have dropped so far.
    pub fn faults(&self) -> Result<Vec<Standing>, LabError> {
        self.listed(&super::lock(&self.faults))
    }

    fn listed(&self, faults: &Faults) -> Result<Vec<Standing>, LabError> {
        if faults.standing.is_empty() {
            return Ok(Vec::new());
        }
        let listing = self
            .host(FABRIC)?
            .must(&["nft", "-j", "list", "table", "bridge", TABLE])?;
        let dropped = dropped(&listing)?;
        let with_count = |(id, fault): (&u32, &Fault)| Standing {
            id: *id,
            fault: fault.clone(),
            dropped: dropped.get(&chain(*id)).copied().unwrap_or_default(),
        };
        Ok(faults.standing.iter().map(with_count).collect())
    }
}

impl Fault {
    /// What cannot be, in words, before anything is done.
    pub fn check(&self, layout: Layout) -> Result<(), LabError> {
        let wrong = |why: String| Err(LabError::Other(why));
        let hosts = |known: Vec<String>, name: &String| {
            if known.contains(name) {
                return Ok(());
            }
            let network = "is not on the network that the lab's switch carries";
            wrong(format!("{name:?} {network}; there are: {}", known.join(" ")))
        };
        let trunk = |name| hosts(layout.nodes(), name);
        match self {
            Self::VlanDrop { vlan, host } => {
                trunk(host)?;
                vlan_is_possible(*vlan)
            }
            Self::OneWay { from, to, vlan } => {
                trunk(from)?;
                trunk(to)?;
                if from == to {
                    return wrong(format!("{from} sends nothing to itself: name two hosts"));
                }
                vlan.map_or(Ok(()), vlan_is_possible)
            }
            Self::Mtu { host, size } => {
                trunk(host)?;
                if SIZES.contains(size) {
                    return Ok(());
                }
                let (low, high) = (SIZES.start(), SIZES.end());
                wrong(format!(
                    "an MTU of {size} is not possible here: {low} to {high} bytes of payload are"
                ))
            }
            Self::Partition { host, from, .. } => {
                hosts(layout.managed().into_iter().map(|(name, _)| name).collect(), host)?;
                if host == CONTROLLER && *from == PartedFrom::Controller {
                    return wrong(format!(
                        "{host} is the controller's host: part it from all, or another host from it"
                    ));
                }
                Ok(())
            }
        }
    }

    /// What the frames that it drops have in common, as nftables say it: one line for each direction.
    fn matches(&self) -> Vec<String> {
        let from = |end: &str| format!("iifname \"{end}\"");
        let to = |end: &str| format!("oifname \"{end}\"");
        let (trunk, management) = (|host: &str| format!("t-{host}"), |host: &str| format!("m-{host}"));
        match self {
            Self::VlanDrop { vlan, host } => {
                let end = trunk(host);
                [from(&end), to(&end)]
                    .map(|side| format!("{side} vlan id {vlan}"))
                    .to_vec()
            }
            Self::OneWay {
                from: left,
                to: right,
                vlan,
            } => {
                let vlan = vlan.map(|vlan| format!(" vlan id {vlan}")).unwrap_or_default();
                vec![format!("{} {}{vlan}", from(&trunk(left)), to(&trunk(right)))]
            }
            // A tag is not counted: the bridge takes it off before it looks.
            Self::Mtu { host, size } => {
                let end = trunk(host);
                [from(&end), to(&end)]
                    .map(|side| format!("{side} meta length > {size}"))
                    .to_vec()
            }
            Self::Partition {
                host,
                from: PartedFrom::Controller,
                one_way,
            } => {
                let (host, controller) = (management(host), management(CONTROLLER));
                let mut both = vec![
                    format!("{} {}", from(&host), to(&controller)),
                    format!("{} {}", from(&controller), to(&host)),
                ];
                both.truncate(if *one_way { 1 } else { 2 });
                both
            }
            Self::Partition {
                host,
                from: PartedFrom::All,
                one_way,
            } => {
                let ends = [management(host), trunk(host)];
                let sent = ends.iter().map(|end| from(end));
                let got = ends.iter().filter(|_| !one_way).map(|end| to(end));
                sent.chain(got).collect()
            }
        }
    }
}

fn vlan_is_possible(vlan: u16) -> Result<(), LabError> {
    if VLANS.contains(&vlan) {
        return Ok(());
    }
    let (low, high) = (VLANS.start(), VLANS.end());
    Err(LabError::Other(format!("there is no VLAN {vlan}: {low} to {high} are")))
}

fn chain(id: u32) -> String {
    format!("fault{id}")
}

/// The chain is a way of its own through the bridge: what one lets pass another may still drop.
fn script(id: u32, fault: &Fault) -> String {
    let rules: String = fault
        .matches()
        .iter()
        .map(|frames| format!("    {frames} counter drop\n"))
        .collect();
    let name = chain(id);
    format!(
        "table bridge {TABLE} {{\n  chain {name} {{\n    type filter hook forward priority 0; policy accept;\n{rules}  \
         }}\n}}\n"
    )
}

/// All of it or nothing.
fn load(fabric: &Host, folder: &Path, script: &str) -> Result<(), LabError> {
    let path = folder.join("faults.nft");
    std::fs::write(&path, script).map_err(LabError::io(format!("cannot write {}", path.display())))?;
    fabric.must(&["nft", "-f", &path.display().to_string()]).map(drop)
}

/// Frames dropped by each chain, from `nft -j list table`.
fn dropped(listing: &str) -> Result<BTreeMap<String, u64>, LabError> {
    let what = |error| LabError::Other(format!("nft listed nonsense: {error}"));
    let all: serde_json::Value = serde_json::from_str(listing).map_err(what)?;
    let mut dropped = BTreeMap::new();
    let objects = all["nftables"].as_array().into_iter().flatten();
    for rule in objects.map(|object| &object["rule"]) {
        let Some(chain) = rule["chain"].as_str() else { continue };
        let counters = rule["expr"].as_array().into_iter().flatten();
        let packets = counters.filter_map(|part| part["counter"]["packets"].as_u64());
        *dropped.entry(chain.to_owned()).or_default() += packets.sum::<u64>();
    }
    Ok(dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout { workers: 2 };

    fn one_way(from: &str, to: &str, vlan: Option<u16>) -> Fault {
        let (from, to) = (from.to_owned(), to.to_owned());
        Fault::OneWay { from, to, vlan }
    }

    fn parted(host: &str, from: PartedFrom, one_way: bool) -> Fault {
        let host = host.to_owned();
        Fault::Partition { host, from, one_way }
    }

    fn refused(fault: &Fault) -> String {
        fault.check(LAYOUT).unwrap_err().to_string()
    }

    #[test]
    fn a_fault_is_one_chain_of_its_own() {
        let fault = Fault::VlanDrop {
            vlan: 110,
            host: "w1".to_owned(),
        };
        let expected = "table bridge faults {
  chain fault3 {
    type filter hook forward priority 0; policy accept;
    iifname \"t-w1\" vlan id 110 counter drop
    oifname \"t-w1\" vlan id 110 counter drop
  }
}
";
        assert_eq!(script(3, &fault), expected);
    }

    #[test]
    fn each_fault_names_the_frames_that_it_drops() {
        let untagged_too = one_way("w1", "nn", None);
        assert_eq!(untagged_too.matches(), [r#"iifname "t-w1" oifname "t-nn""#]);
        let of_one = one_way("w1", "w2", Some(110));
        assert_eq!(of_one.matches(), [r#"iifname "t-w1" oifname "t-w2" vlan id 110"#]);
        let small = Fault::Mtu {
            host: "w2".to_owned(),
            size: 1400,
        };
        let both = [
            r#"iifname "t-w2" meta length > 1400"#,
            r#"oifname "t-w2" meta length > 1400"#,
        ];
        assert_eq!(small.matches(), both);
        let alone = parted("w1", PartedFrom::Controller, false);
        let both = [r#"iifname "m-w1" oifname "m-ctl""#, r#"iifname "m-ctl" oifname "m-w1""#];
        assert_eq!(alone.matches(), both);
        let unheard = parted("w1", PartedFrom::Controller, true);
        assert_eq!(unheard.matches(), both[..1]);
        let unheard = parted("w1", PartedFrom::All, true);
        assert_eq!(unheard.matches(), [r#"iifname "m-w1""#, r#"iifname "t-w1""#]);
        assert_eq!(parted("w1", PartedFrom::All, false).matches().len(), 4);
    }

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        let host = || "w1".to_owned();
        let drop = |vlan, host: &str| Fault::VlanDrop {
            vlan,
            host: host.to_owned(),
        };
        let said = refused(&drop(110, "w3"));
        assert!(said.starts_with("\"w3\" is not on the network"), "{said}");
        assert!(said.ends_with("there are: w1 w2 nn"), "{said}");
        assert!(refused(&drop(110, "ctl")).ends_with("there are: w1 w2 nn"));
        assert_eq!(refused(&drop(0, "w1")), "there is no VLAN 0: 1 to 4094 are");
        assert_eq!(refused(&drop(4095, "w1")), "there is no VLAN 4095: 1 to 4094 are");
        let said = refused(&one_way("w1", "w1", None));
        assert_eq!(said, "w1 sends nothing to itself: name two hosts");
        let said = refused(&Fault::Mtu { host: host(), size: 67 });
        assert_eq!(
            said,
            "an MTU of 67 is not possible here: 68 to 9216 bytes of payload are"
        );
        let said = refused(&parted("ctl", PartedFrom::Controller, false));
        assert!(said.starts_with("ctl is the controller's host"), "{said}");
        let said = refused(&parted("inet", PartedFrom::All, false));
        assert!(said.ends_with("there are: ctl nn w1 w2"), "{said}");
        assert!(parted("ctl", PartedFrom::All, false).check(LAYOUT).is_ok());
    }

    #[test]
    fn dropped_frames_are_summed_by_fault() {
        let listing = r#"{"nftables": [{"metainfo": {}}, {"table": {"name": "faults"}},
            {"rule": {"chain": "fault1", "expr": [{"match": {}}, {"counter": {"packets": 2, "bytes": 9}}, {"drop": null}]}},
            {"rule": {"chain": "fault1", "expr": [{"counter": {"packets": 3, "bytes": 9}}]}},
            {"rule": {"chain": "fault4", "expr": [{"counter": {"packets": 0, "bytes": 0}}]}}]}"#;
        let counts = dropped(listing).unwrap();
        assert_eq!(
            counts.into_iter().collect::<Vec<_>>(),
            [("fault1".to_owned(), 5), ("fault4".to_owned(), 0)]
        );
        assert!(dropped("nothing").is_err());
    }
}
