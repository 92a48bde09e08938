//! Looks at the hosts and at what the API says of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use trunkline_integration::lab::layout::NETNODE;
use trunkline_integration::lab::{Lab, Output};
use trunkline_integration::wait::until;
use trunkline_proto::wire::{Interface, Slice, SliceStatus, State};

use crate::support::{LIMIT, api, must_trunkctl};

pub(crate) const INTERNET_VLAN: u32 = 400;

/// A command on a host, which must succeed; what it printed.
pub(crate) fn on(lab: &Lab, host: &str, argv: &[&str]) -> String {
    lab.host(host).unwrap().must(argv).unwrap()
}

/// A command on a host, however it ends.
pub(crate) fn try_on(lab: &Lab, host: &str, argv: &[&str]) -> Output {
    lab.host(host).unwrap().exec(argv).unwrap()
}

/// Makes the drafts what the topology says; no host is touched.
pub(crate) fn draft(lab: &Lab, topology: &str) {
    must_trunkctl(lab, &["apply", "-f", &file(lab, topology)]);
}

/// A topology as a file.
pub(crate) fn file(lab: &Lab, topology: &str) -> String {
    let path = lab.folder().join("regression.yaml");
    std::fs::write(&path, topology).unwrap();
    path.display().to_string()
}

pub(crate) fn slice(lab: &Lab, name: &str) -> Slice {
    let slices = api(lab).slices().unwrap();
    slices.into_iter().find(|slice| slice.name == name).unwrap()
}

/// `slice/vm.interface`.
pub(crate) fn interface(lab: &Lab, name: &str) -> Interface {
    let (vm, interface) = name.split_once('.').unwrap();
    let vm = api(lab).vm(vm).unwrap();
    vm.interfaces.into_iter().find(|each| each.name == interface).unwrap()
}

/// `slice/vm.interface`.
pub(crate) fn address(lab: &Lab, name: &str) -> Ipv4Addr {
    interface(lab, name).address.parse().unwrap()
}

pub(crate) fn status(lab: &Lab, slice: &str) -> Option<SliceStatus> {
    let all = api(lab).status().unwrap().slices;
    all.into_iter().find(|status| status.name == slice)
}

/// Waits for a status that fits.
pub(crate) fn await_status(lab: &Lab, slice: &str, what: &str, fits: impl Fn(&SliceStatus) -> bool) -> SliceStatus {
    until(&format!("{slice} {what}"), LIMIT, || match status(lab, slice) {
        Some(status) if fits(&status) => Ok(status),
        other => Err(format!("{:?}", other.map(|status| (status.state(), status.reason)))),
    })
    .unwrap()
}

/// Waits for a state whose reason says all of this.
pub(crate) fn await_state(lab: &Lab, slice: &str, wanted: State, says: &[&str]) -> SliceStatus {
    await_status(lab, slice, &format!("to be {wanted:?} because of {says:?}"), |status| {
        status.state() == wanted && says.iter().all(|part| status.reason.contains(part))
    })
}

/// Waits until a slice that goes away is gone from every node but one.
pub(crate) fn await_only_holder(lab: &Lab, slice: &str, node: &str) {
    // Each node that holds something has a part of its own.
    await_status(lab, slice, &format!("to be on {node} alone"), |status| {
        status.removing && status.reason.starts_with(&format!("{node} ")) && !status.reason.contains(';')
    });
}

/// What `ovs-vsctl` says of a port of `br-int`.
pub(crate) fn port_column(lab: &Lab, node: &str, port: &str, column: &str) -> String {
    let argv = ["ovs-vsctl", "--timeout=10", "get", "port", port, column];
    on(lab, node, &argv).trim().to_owned()
}

/// OpenFlow numbers of every port of a node.
pub(crate) fn ofports(lab: &Lab, node: &str) -> BTreeMap<String, String> {
    let argv = [
        "ovs-vsctl",
        "--timeout=10",
        "--format=csv",
        "--data=bare",
        "--no-headings",
    ];
    let argv = [&argv[..], &["--columns=name,ofport", "list", "interface"]].concat();
    let text = on(lab, node, &argv);
    let pair = |line: &str| {
        line.split_once(',')
            .map(|(name, number)| (name.to_owned(), number.to_owned()))
    };
    text.lines().filter_map(pair).collect()
}

/// The uplink's VLAN list, as it is in the switch.
pub(crate) fn trunk(lab: &Lab, node: &str) -> String {
    port_column(lab, node, "trunk0", "trunks")
}

/// What the uplink's list has to be for these slices, all of them deployed: `[4095]` when it is to let nothing through.
pub(crate) fn expected_trunk(slices: &[Slice], node: &str) -> String {
    let vms = slices.iter().flat_map(|slice| &slice.vms);
    let vms = vms.filter(|vm| node == NETNODE || vm.worker == node);
    let vlans: BTreeSet<u32> = vms
        .flat_map(|vm| &vm.interfaces)
        .map(|each| each.vlan)
        .filter(|vlan| *vlan != 0)
        .collect();
    if vlans.is_empty() {
        "[4095]".to_owned()
    } else {
        format!("{vlans:?}").replace('{', "[").replace('}', "]")
    }
}

/// Every node's uplink carries exactly what the named slices need there.
pub(crate) fn assert_trunks(lab: &Lab, deployed: &[&str]) {
    let mut slices = api(lab).slices().unwrap();
    slices.retain(|slice| deployed.contains(&slice.name.as_str()));
    for node in lab.layout().nodes() {
        let expected = expected_trunk(&slices, &node);
        assert_eq!(
            trunk(lab, &node),
            expected,
            "the trunk of {node} with {deployed:?} deployed"
        );
    }
}

/// The DHCP servers' processes by VLAN.
pub(crate) fn dhcp_servers(lab: &Lab) -> BTreeMap<u32, String> {
    let text = on(lab, NETNODE, &["ps", "-eo", "pid,args"]);
    let server = |line: &str| {
        let (pid, command) = line.trim().split_once(' ')?;
        let (_, rest) = command.split_once("/dhcp/vlan")?;
        let vlan: String = rest.chars().take_while(char::is_ascii_digit).collect();
        command
            .contains("dnsmasq")
            .then(|| (vlan.parse().unwrap(), pid.to_owned()))
    };
    text.lines().filter_map(server).collect()
}

/// The lease file of a VLAN's DHCP server.
pub(crate) fn leases(lab: &Lab, vlan: u32) -> String {
    on(
        lab,
        NETNODE,
        &["cat", &format!("/var/lib/trunkline-netnode/dhcp/vlan{vlan}/leases")],
    )
}

/// How many connections NAT has counted.
pub(crate) fn nat_packets(lab: &Lab) -> u64 {
    let text = on(
        lab,
        NETNODE,
        &["nft", "list", "counter", "inet", "trunkline", "nat_vlan400"],
    );
    let (_, rest) = text.split_once("packets ").unwrap();
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

/// Connections that the network node remembers for a source: an address or a subnet.
pub(crate) fn connections(lab: &Lab, source: &str) -> String {
    on(lab, NETNODE, &["conntrack", "-L", "-s", source])
}

/// Whether the network node forwards.
pub(crate) fn forwarding(lab: &Lab) -> String {
    on(lab, NETNODE, &["cat", "/proc/sys/net/ipv4/ip_forward"])
        .trim()
        .to_owned()
}
