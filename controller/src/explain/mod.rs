//! Why a guest reaches another one or the internet, or does not: the way of a frame, step by step. Pure.
//!
//! ```text
//!   names --find--> ends --joined--> a link, the internet, or nothing
//!                                      |
//!   converge's status of the slices -- site --> steps: node, guest, tap, tag, flows | trunks, probe | the same back to front
//!                                                      then what the network node gives: lease, gateway, nat, uplink, firewall
//! ```
//!
//! It says nothing that `status` does not know: every step is one reported resource, or a part of one. A step stands as it was
//! reported; what that means for a frame is the step's effect. What nobody has told is unknown: neither broken nor
//! fine.
//!
//! The order is that in which a frame meets the steps, but for one thing: both ends' trunks come before the probe, because the probe
//! is the proof over both, and a trunk that lacks the VLAN is why it fails.

mod find;
mod joined;
mod network;
mod port;
mod proof;
mod site;
mod step;
#[cfg(test)]
mod tests;

use trunkline_proto::wire;

use crate::{converge::Views, model::Link, transition::State};
use find::{End, Target};
use site::{Placed, Site};
use step::{Effect, Step};

/// What `from` or `to` names is not there, or is not clear.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{description}")]
pub struct Unnamed {
    /// `from` or `to`.
    pub field: &'static str,
    /// What sort of thing does not exist, and its name; none when the words make no sense, or too much.
    pub missing: Option<(&'static str, String)>,
    /// What is wrong, and what there is.
    pub description: String,
}

/// The way from one interface to another, or to the `internet`.
///
/// # Errors
/// One of them is not the name of one interface.
pub fn explain(state: &State, views: &Views, from: &str, to: &str) -> Result<wire::ExplainResponse, Unnamed> {
    let from = find::end(&state.cluster, "from", from)?;
    let to = find::target(&state.cluster, "to", to)?;
    let (steps, names) = match &to {
        Target::Internet => (
            to_internet(state, views, &from),
            (from.short(), "the internet".to_owned()),
        ),
        Target::Guest(end) if *end == from => {
            return Err(Unnamed {
                field: "to",
                missing: None,
                description: format!("{end} is both ends of the way; name two interfaces, or one and `internet`"),
            });
        }
        Target::Guest(end) if end.slice == from.slice => {
            (to_guest(state, views, &from, end), (from.short(), end.short()))
        }
        Target::Guest(end) => (to_guest(state, views, &from, end), (from.to_string(), end.to_string())),
    };
    let broken = steps.iter().position(|step| step.effect.is_broken());
    Ok(wire::ExplainResponse {
        verdict: verdict(&names.0, &names.1, &steps, broken),
        first_broken: broken.map_or(-1, |index| i32::try_from(index).unwrap_or(i32::MAX)),
        hops: steps.into_iter().map(wire::Hop::from).collect(),
        from: from.to_string(),
        to: to.to_string(),
    })
}

/// One sentence.
fn verdict(from: &str, to: &str, steps: &[Step], broken: Option<usize>) -> String {
    let unknown = unknown(steps);
    let passes = unknown.is_none_or(|step| step.aside);
    let not_known = |step: &Step| format!("it is not known whether {from} reaches {to}: {}", step.found());
    let Some((index, step)) = broken.and_then(|index| Some((index, steps.get(index)?))) else {
        return match unknown {
            None => format!("{from} reaches {to}"),
            Some(step) if step.aside => {
                format!(
                    "{from} reaches {to} on the wire; what else they need is not known: {}",
                    step.found()
                )
            }
            Some(step) => not_known(step),
        };
    };
    let more = steps.iter().skip(index + 1).filter(|step| step.effect.is_broken());
    let more = match more.count() {
        0 => String::new(),
        1 => "; 1 step more is broken".to_owned(),
        more => format!("; {more} steps more are broken"),
    };
    let found = step.found();
    let on_the_way = steps.iter().filter(|step| !step.aside && step.effect.is_broken());
    let worst = on_the_way.map(|step| step.effect).max();
    match (worst, unknown) {
        _ if step.aside && passes => format!("{from} reaches {to} on the wire, but not as it should: {found}{more}"),
        (_, Some(unknown)) if step.aside => format!("{}; besides, {found}{more}", not_known(unknown)),
        (Some(Effect::Hinders), _) => format!("{from} does not reach {to} as it should: {found}{more}"),
        (Some(Effect::Waits), _) => format!("{from} does not reach {to} yet: {found}{more}"),
        _ => format!("{from} does not reach {to}: {found}{more}"),
    }
}

/// What is to be found out first: on the way before beside it, and where it is said how before what only follows from that.
fn unknown(steps: &[Step]) -> Option<&Step> {
    let unknown = || steps.iter().filter(|step| step.effect == Effect::Unknown);
    unknown().min_by_key(|step| (step.aside, !step.is_mendable()))
}

fn to_guest<'a>(state: &'a State, views: &'a Views, from: &'a End<'a>, to: &'a End<'a>) -> Vec<Step> {
    let site = Site::new(state, views, &[from, to]);
    let (link, joined) = joined::guests(from, to);
    let mut steps = vec![joined];
    let (here, there) = (from.placed(), to.placed());
    steps.extend(here.iter().map(|here| site.node(here.worker())));
    steps.extend(here.iter().flat_map(|here| site.guest(here)));
    if let (Some(here), Some(there)) = (&here, &there) {
        if here.worker() != there.worker() {
            steps.extend(link.map(|link| site.trunk(here.worker(), link.vlan)));
            steps.push(site.node(there.worker()));
            steps.extend(link.map(|link| site.trunk(there.worker(), link.vlan)));
            steps.extend(
                link.iter()
                    .flat_map(|link| site.proof(here.worker(), there.worker(), link.vlan)),
            );
        }
    } else {
        steps.extend(there.iter().map(|there| site.node(there.worker())));
    }
    steps.extend(there.iter().flat_map(|there| site.guest(there).into_iter().rev()));
    if let (Some(link), Some(here), Some(there)) = (link, &here, &there) {
        let given = given(&site, link, [here, there]);
        let is_new = |step: &Step| !steps.iter().any(|told| told.is_same(step));
        let told: Vec<Step> = given.into_iter().filter(is_new).collect();
        steps.extend(told);
    }
    steps
}

/// What the network node gives two guests: their addresses, and a gateway. Its own trunk and what joins it to a guest's worker are told
/// only where they are not right, for no frame between the guests comes there.
fn given(site: &Site, link: &Link, guests: [&Placed; 2]) -> Vec<Step> {
    let mut steps = vec![site.netnode()];
    if let Some(netnode) = site.netnode_name() {
        let mut ways = vec![site.trunk(netnode, link.vlan)];
        let mut workers: Vec<_> = guests.iter().map(|guest| guest.worker()).collect();
        workers.dedup();
        for worker in workers {
            ways.extend(site.proof(worker, netnode, link.vlan));
        }
        steps.extend(ways.into_iter().filter(|step| step.effect.is_broken()));
        if link.dhcp {
            steps.extend(guests.map(|guest| site.lease(guest, link.vlan)));
        }
        steps.push(site.gateway(netnode, link.vlan));
    }
    steps.into_iter().map(Step::aside).collect()
}

fn to_internet<'a>(state: &'a State, views: &'a Views, from: &'a End<'a>) -> Vec<Step> {
    let site = Site::new(state, views, &[from]);
    let (joined, step) = joined::internet(from);
    let mut steps = vec![step];
    let Some(here) = from.placed() else {
        return steps;
    };
    steps.push(site.node(here.worker()));
    steps.extend(site.guest(&here));
    if joined {
        let vlan = trunkline_proto::VlanId::INTERNET;
        steps.push(site.trunk(here.worker(), vlan));
        steps.push(site.netnode());
        if let Some(netnode) = site.netnode_name() {
            steps.push(site.trunk(netnode, vlan));
            steps.extend(site.proof(here.worker(), netnode, vlan));
            steps.push(site.lease(&here, vlan));
            steps.extend(site.way_out(&here, vlan));
        }
    }
    steps
}
