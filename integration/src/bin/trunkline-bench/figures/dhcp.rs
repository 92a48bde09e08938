//! Links with DHCP: from the deploy call until each server answers a real DISCOVER.
//!
//! What is measured is the network node, so no agent runs on the workers; the floor works on a worker's host, which is of the same
//! kind. Its gateways are there too, because a link has one.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use trunkline_integration::LabError;
use trunkline_integration::api::Api;
use trunkline_integration::lab::layout::{FABRIC, NETNODE};
use trunkline_integration::lab::{AGENT_PROGRAM, CONTROLLER_PROGRAM, Host, NETNODE_PROGRAM, OVSDB, VSWITCHD};
use trunkline_integration::wait::until;
use trunkline_proto::wire::{LinkSpec, Slice, SliceSpec, VmSpec};

use crate::discover::await_offers;
use crate::figure::{Bench, Figure, Goal, Row};
use crate::floor::dhcp::{Question, Site, prepare};
use crate::held::Fleet;
use crate::operator;
use crate::part::{Asked, Part};
use crate::series::interleave;
use crate::settle::settle;

pub(crate) const FIGURE: Figure = Figure {
    name: "dhcp",
    what: "100 links with DHCP on the network node, until each answers a real DISCOVER",
    floor: "the same ports, namespaces, addresses and dnsmasq by a bare loop of system calls",
    run,
};

const NAME: &str = "dhcp";
/// Data interfaces of a VM.
const INTERFACES: u32 = 10;
/// The host of the floor.
const OTHER: &str = "w2";
/// How often a server that has not answered is asked again.
const AGAIN: Duration = Duration::from_millis(20);
const CLEAN_LIMIT: Duration = Duration::from_secs(120);

fn run(bench: &Bench) -> Result<Vec<Row>, LabError> {
    let links = bench.size(100, 6);
    let Fleet { api, lab } = Fleet::empty()?;
    for worker in lab.layout().workers() {
        lab.kill_daemon(&worker, AGENT_PROGRAM)?;
    }
    let slice = draft(&api, links)?;
    let sites: Vec<Site> = slice.links.iter().map(site).collect::<Result<_, _>>()?;
    let vlans: Vec<u16> = sites.iter().map(|site| site.vlan).collect();
    let (fabric, node, other) = (lab.host(FABRIC)?, lab.host(NETNODE)?, lab.host(OTHER)?);
    prepare(other)?;
    let mut bare = Asked::start_on(other, &Part::Dhcp(sites))?;
    let mut pids = vec![bare.id()];
    for (host, program) in [
        (NETNODE, OVSDB),
        (NETNODE, VSWITCHD),
        (NETNODE, NETNODE_PROGRAM),
        (OTHER, VSWITCHD),
        ("ctl", CONTROLLER_PROGRAM),
    ] {
        pids.extend(lab.daemon_pid(host, program));
    }
    let ours = || {
        settle(&pids)?;
        let start = Instant::now();
        operator::deploy(&api, NAME)?;
        await_offers(fabric, &format!("t-{NETNODE}"), &vlans, AGAIN)?;
        let took = start.elapsed();
        settle(&pids)?;
        operator::undeploy(&api, NAME)?;
        await_clean(node)?;
        Ok(took.as_secs_f64() * 1e3)
    };
    let floor = || {
        settle(&pids)?;
        let start = Instant::now();
        bare.ask::<()>(&Question::Start)?;
        await_offers(fabric, &format!("t-{OTHER}"), &vlans, AGAIN)?;
        let took = start.elapsed();
        bare.ask::<()>(&Question::Stop)?;
        Ok(took.as_secs_f64() * 1e3)
    };
    let (ours, floor) = interleave(bench.size(7, 1), ours, floor)?;
    Ok(vec![Row::of(NAME, "ms", &ours, &floor, Goal::AtMostTimes(1.25))])
}

/// A slice of so many links, each between two VMs of one worker; it is on no host yet.
fn draft(api: &Api, links: u32) -> Result<Slice, LabError> {
    let pairs = links.div_ceil(INTERFACES);
    let vms = (0..pairs * 2).map(|number| VmSpec {
        name: format!("v{number}"),
        worker: "w1".to_owned(),
        data_interfaces_count: INTERFACES,
        ..VmSpec::default()
    });
    let links_of = (0..links).map(|link| {
        let (pair, interface) = (link / INTERFACES * 2, link % INTERFACES + 1);
        LinkSpec {
            name: format!("l{link}"),
            ends: vec![
                format!("v{pair}.eth{interface}"),
                format!("v{}.eth{interface}", pair + 1),
            ],
            ..LinkSpec::default()
        }
    });
    let slice = SliceSpec {
        name: NAME.to_owned(),
        vms: vms.collect(),
        links: links_of.collect(),
        vlan_pool_size: links,
    };
    let made = operator::apply(api, vec![slice], false)?.slices.pop();
    made.ok_or_else(|| LabError::Other("the controller has made no slice".to_owned()))
}

fn site(link: &trunkline_proto::wire::Link) -> Result<Site, LabError> {
    let gateway: Option<Ipv4Addr> = link.gateway.parse().ok();
    let vlan = u16::try_from(link.vlan).ok();
    let site = vlan.zip(gateway).map(|(vlan, gateway)| Site { vlan, gateway });
    site.ok_or_else(|| LabError::Other(format!("the link {} has no VLAN or no gateway", link.name)))
}

/// Until nothing of ours is left on the host.
fn await_clean(host: &Host) -> Result<(), LabError> {
    until("an end of the DHCP servers", CLEAN_LIMIT, || {
        let files = std::fs::read_dir(host.path("/var/lib/trunkline-netnode/dhcp")).map_or(0, Iterator::count);
        let listed = host
            .exec(&["ovs-vsctl", "--timeout=20", "list-ports", "br-int"])
            .map_err(|error| error.chain())?;
        let ports = listed
            .stdout
            .lines()
            .filter(|name| name.starts_with("gw_") || name.starts_with("dhcp_"))
            .count();
        if files + ports == 0 {
            Ok(())
        } else {
            Err(format!("{files} servers and {ports} ports are left"))
        }
    })
}
