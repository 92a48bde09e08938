//! What was changed of a server behind our back, in words. Pure.

use super::observe::{NamespaceState, Site};
use super::plan::{Step, Wanted, steps};
use crate::Fingerprint;

/// One text for each thing that is not as it should be; what follows from it is left out.
pub fn drift(wanted: &Wanted, site: &Site) -> Vec<String> {
    let one = |text: &str| vec![text.to_owned()];
    match site.namespace {
        NamespaceState::Absent => return one("the namespace was gone"),
        NamespaceState::Hidden(_) => return one("the namespace was gone from /run/netns, with dnsmasq still in it"),
        // Not put right, so no news.
        NamespaceState::Foreign => return Vec::new(),
        NamespaceState::Ours => {}
    }
    if site.outside.is_some() {
        return one("its device was not in its namespace");
    }
    let Some(device) = &site.device else {
        // The switch makes it.
        return Vec::new();
    };
    let edited = |held: Option<Fingerprint>, started: Option<Fingerprint>, name: &str| match held {
        None => Some(format!("dnsmasq's file {name} was gone")),
        // What it was started with is what was written: anything else was written by somebody else.
        Some(_) if started.is_some() && held != started => Some(format!("dnsmasq's file was edited ({name})")),
        Some(_) => None,
    };
    let started = site.server.map(|server| server.started);
    let word = |step: &Step| match step {
        Step::QuietNamespace => Some("IPv6, forwarding or ARP settings of its namespace were changed".to_owned()),
        Step::SetFilter => Some("its namespace's nftables table was not as rendered".to_owned()),
        Step::SetLoopbackUp => Some("lo was down in its namespace".to_owned()),
        Step::SetMac(_) => Some("its device had another MAC".to_owned()),
        Step::SetMtu(mtu) => Some(format!("its device had an MTU of {}, not {mtu}", device.mtu)),
        Step::RemoveAddress(address) => Some(format!("its device had the foreign address {address}")),
        Step::AddAddress(_) => Some("its address was gone".to_owned()),
        Step::SetUp => Some("its device was down".to_owned()),
        Step::WriteConfig => edited(site.config, started.map(|s| s.config), "dnsmasq.conf"),
        Step::WriteHosts => edited(site.hosts, started.map(|s| s.hosts), "hosts"),
        Step::Start if site.server.is_none() => Some("dnsmasq did not run".to_owned()),
        Step::Start if site.server.is_some_and(|server| !server.serving) => Some("dnsmasq did not serve".to_owned()),
        Step::Start
        | Step::Stop(_)
        | Step::RestoreNamespace(_)
        | Step::CreateNamespace
        | Step::DropFilter
        | Step::DeleteDeadDevice(_)
        | Step::MoveDevice(_)
        | Step::DropLeases(_)
        | Step::Reload(_) => None,
    };
    steps(wanted, site).iter().filter_map(word).collect()
}
