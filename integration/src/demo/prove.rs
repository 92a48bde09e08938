//! The proof, from inside the guests: leases, peers, the internet, and that the other slice is out of reach.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use trunkline_proto::wire::{Interface, Slice, Vm};

use super::Row;
use crate::LabError;
use crate::guest::Guest;
use crate::lab::Lab;
use crate::lab::layout::{INTERNET_ADDRESS, UPLINK_ADDRESS};

/// DNS server that the controller hands out unless told otherwise.
const DNS: &str = "8.8.8.8";
/// Where every guest's own TCP server listens.
const PORT: u16 = 5000;
const LEASE_LIMIT: Duration = Duration::from_secs(60);
const PROBE_LIMIT: Duration = Duration::from_secs(60);

type Guests = BTreeMap<String, Guest>;

/// Makes every point of the proof. An error means that it could not be made; a point that does not hold is a row.
pub fn prove(lab: &Lab, slices: &[Slice], guests: &Guests) -> Result<Vec<Row>, LabError> {
    let vms: Vec<&Vm> = slices.iter().flat_map(|slice| &slice.vms).collect();
    let mut rows = each(&vms, |vm| leases(slices, vm, guest(guests, vm)?))?;
    each(&vms, |vm| {
        guest(guests, vm)?.tcp_serve(PORT, &vm.name).map(|()| Vec::new())
    })?;
    rows.extend(each(&vms, |vm| peers(&vms, vm, guest(guests, vm)?))?);
    rows.extend(each(&vms, |vm| internet(vm, guest(guests, vm)?))?);
    rows.push(nat(lab));
    rows.extend(each(&vms, |vm| strangers(slices, vm, guest(guests, vm)?))?);
    Ok(rows)
}

/// Does the same for every VM at once; the rows keep the order of the VMs.
fn each<'a>(vms: &[&'a Vm], work: impl Fn(&'a Vm) -> Result<Vec<Row>, LabError> + Sync) -> Result<Vec<Row>, LabError> {
    let work = &work;
    std::thread::scope(|scope| {
        let started: Vec<_> = vms.iter().map(|&vm| scope.spawn(move || work(vm))).collect();
        let all: Result<Vec<Vec<Row>>, LabError> = started.into_iter().map(joined).collect();
        all.map(|rows| rows.into_iter().flatten().collect())
    })
}

pub(crate) fn joined<T>(thread: ScopedJoinHandle<'_, Result<T, LabError>>) -> Result<T, LabError> {
    thread
        .join()
        .unwrap_or_else(|_| Err(LabError::Other("a part of the demo died".to_owned())))
}

fn guest<'a>(guests: &'a Guests, vm: &Vm) -> Result<&'a Guest, LabError> {
    let name = full(vm);
    guests
        .get(&name)
        .ok_or_else(|| LabError::Other(format!("no guest of {name} runs")))
}

fn full(vm: &Vm) -> String {
    format!("{}/{}", vm.slice, vm.name)
}

/// Interfaces that a DHCP server serves: on a link that has one, or on VLAN 400.
fn served<'a>(slices: &'a [Slice], vm: &'a Vm) -> impl Iterator<Item = &'a Interface> {
    let has_dhcp = |interface: &Interface| {
        let links = slices
            .iter()
            .filter(|slice| slice.name == vm.slice)
            .flat_map(|slice| &slice.links);
        links.into_iter().any(|link| link.name == interface.link && link.dhcp)
    };
    vm.interfaces
        .iter()
        .filter(move |interface| has_dhcp(interface) || (interface.name == "eth0" && vm.internet_enabled))
}

/// A VM with internet has its default route on eth0 and nowhere else.
fn leases(slices: &[Slice], vm: &Vm, guest: &Guest) -> Result<Vec<Row>, LabError> {
    let row = |interface: &Interface| {
        let routed = !vm.internet_enabled || interface.name == "eth0";
        let router = if routed { interface.gateway.as_str() } else { "none" };
        let (address, prefix) = (&interface.address, interface.prefix_len);
        let expected = format!("{address}/{prefix}, router {router}, dns {DNS}");
        let seen = match guest.await_lease(&interface.name, LEASE_LIMIT) {
            Ok(lease) => {
                let router = if lease.routers.is_empty() {
                    "none".to_owned()
                } else {
                    join(&lease.routers)
                };
                format!(
                    "{}/{}, router {router}, dns {}",
                    lease.address,
                    lease.prefix,
                    join(&lease.dns)
                )
            }
            Err(LabError::Timeout { .. }) => "no lease".to_owned(),
            Err(error) => return Err(error),
        };
        Ok(Row::equal(
            format!("{} {}: lease by DHCP", full(vm), interface.name),
            expected,
            seen,
        ))
    };
    served(slices, vm).map(row).collect()
}

fn join(addresses: &[Ipv4Addr]) -> String {
    addresses.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(" ")
}

/// Every other end of every link of the VM, by ping and by TCP.
fn peers(vms: &[&Vm], vm: &Vm, guest: &Guest) -> Result<Vec<Row>, LabError> {
    let mut rows = Vec::new();
    for interface in vm.interfaces.iter().filter(|interface| !interface.link.is_empty()) {
        let others = vms
            .iter()
            .filter(|other| other.slice == vm.slice && other.name != vm.name);
        for (other, end) in others.flat_map(|other| other.interfaces.iter().map(move |end| (other, end))) {
            if end.link != interface.link {
                continue;
            }
            let Ok(address) = end.address.parse::<Ipv4Addr>() else {
                continue;
            };
            let pinged = if guest.ping(address)? { "ping" } else { "no ping" };
            let told = guest.tcp_read(address, PORT)?;
            let told = told.map_or_else(|| "no TCP".to_owned(), |text| format!("TCP says {text}"));
            let way = format!("{} {} -> {} {}", full(vm), vm.worker, other.name, other.worker);
            let expected = format!("ping, TCP says {}", other.name);
            rows.push(Row::equal(
                format!("{way} over {} (VLAN {})", interface.link, interface.vlan),
                expected,
                format!("{pinged}, {told}"),
            ));
        }
    }
    Ok(rows)
}

/// The internet host is reached by those that may, and sees the network node's address; the others do not get there.
fn internet(vm: &Vm, guest: &Guest) -> Result<Vec<Row>, LabError> {
    let pinged = if guest.ping(INTERNET_ADDRESS)? {
        "ping"
    } else {
        "no ping"
    };
    let page = guest.http_get(INTERNET_ADDRESS)?;
    let seen = match page.as_deref().and_then(|page| page.split_once("you come from ")) {
        Some((_, from)) => format!("{pinged}, HTTP, seen there as {from}"),
        None => format!("{pinged}, no HTTP"),
    };
    let row = if vm.internet_enabled {
        let expected = format!("ping, HTTP, seen there as {UPLINK_ADDRESS}");
        Row::equal(format!("{} reaches the internet", full(vm)), expected, seen)
    } else {
        Row::equal(
            format!("{} does not reach the internet", full(vm)),
            "no ping, no HTTP",
            seen,
        )
    };
    Ok(vec![row])
}

/// What the internet host wrote down itself.
fn nat(lab: &Lab) -> Row {
    let mut callers = lab.internet().callers();
    callers.sort_unstable();
    callers.dedup();
    let seen = callers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    Row::equal(
        "the internet host's log names only the network node",
        UPLINK_ADDRESS.to_string(),
        seen,
    )
}

/// Everything of every other slice, its gateways and DHCP servers included: no answer to ARP, ping or TCP.
fn strangers(slices: &[Slice], vm: &Vm, guest: &Guest) -> Result<Vec<Row>, LabError> {
    let targets = addresses(slices.iter().filter(|slice| slice.name != vm.slice));
    let links = vm.interfaces.iter().filter(|interface| interface.vlan != 0);
    let interfaces: Vec<&str> = links.map(|interface| interface.name.as_str()).collect();
    let mut line = String::new();
    for target in &targets {
        line += &format!("(ping -c 2 -i 0.2 -W 1 {target} > /dev/null 2>&1 && echo {target} by ping) & ");
        line += &format!("(nc -w 2 {target} {PORT} < /dev/null 2> /dev/null | grep -q . && echo {target} by TCP) & ");
        for interface in &interfaces {
            line += &format!("(arping -c 2 -w 2 -I {interface} {target} > /dev/null 2>&1 && echo {target} by ARP) & ");
        }
    }
    line += "wait";
    let answer = guest.exec_for(&["sh", "-c", &line], PROBE_LIMIT)?;
    let mut reached: Vec<&str> = answer.stdout.lines().filter(|line| line.contains(" by ")).collect();
    reached.sort_unstable();
    let all = format!("none of {} addresses", targets.len());
    let seen = if reached.is_empty() {
        all.clone()
    } else {
        reached.join(", ")
    };
    Ok(vec![Row::equal(
        format!("{} reaches nothing of the other slice", full(vm)),
        all,
        seen,
    )])
}

/// Addresses of everything in the slices: guests, and on each link the gateway and the DHCP server.
fn addresses<'a>(slices: impl Iterator<Item = &'a Slice>) -> Vec<Ipv4Addr> {
    let mut all = Vec::new();
    for slice in slices {
        let interfaces = slice.vms.iter().flat_map(|vm| &vm.interfaces);
        all.extend(interfaces.filter_map(|interface| interface.address.parse::<Ipv4Addr>().ok()));
        for gateway in slice
            .links
            .iter()
            .filter_map(|link| link.gateway.parse::<Ipv4Addr>().ok())
        {
            let [a, b, c, _] = gateway.octets();
            all.extend([gateway, Ipv4Addr::new(a, b, c, 254)]);
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}
