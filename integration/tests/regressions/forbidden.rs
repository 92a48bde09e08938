//! Ways that a guest must not find: out of an interface without a VLAN, into another slice through the gateways, to the
//! internet without leave, and to the network node itself.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};

use trunkline_integration::guest::Guest;
use trunkline_integration::lab::layout::{
    CONTROLLER_ADDRESS, INTERNET_ADDRESS, NETNODE, NETNODE_ADDRESS, ROUTER_ADDRESS, UPLINK_ADDRESS,
};
use trunkline_integration::lab::{Lab, Options};

use crate::looks::*;
use crate::support::{LIMIT, api, apply, fleet, guests, must_trunkctl};

pub(crate) const TOPOLOGY: &str = "
slices:
  - name: red
    vms:
      - { name: in, worker: w1, data_interfaces_count: 2 }
      - { name: out, worker: w2, internet_enabled: true, data_interfaces_count: 1 }
      - { name: mate, worker: w1, data_interfaces_count: 1 }
    links:
      - { name: wire, ends: [in.eth1, out.eth1] }
  - name: sea
    vms:
      - { name: in, worker: w1, data_interfaces_count: 1 }
      - { name: out, worker: w2, internet_enabled: true, data_interfaces_count: 1 }
    links:
      - { name: wire, ends: [in.eth1, out.eth1] }
";

/// Where a server of the test listens.
const PORT: u16 = 7600;

type Guests = BTreeMap<String, Guest>;

fn start(lab: &Lab) -> Guests {
    apply(lab, TOPOLOGY);
    let guests = guests(lab, &["red", "sea"]);
    for (name, nic) in [
        ("red/in", "eth1"),
        ("red/out", "eth1"),
        ("sea/in", "eth1"),
        ("sea/out", "eth1"),
    ] {
        guests[name].await_lease(nic, LIMIT).unwrap();
    }
    for name in ["red/out", "sea/out"] {
        guests[name].await_lease("eth0", LIMIT).unwrap();
        guests[name].tcp_serve(PORT, "reached").unwrap();
    }
    guests["sea/in"].tcp_serve(PORT, "reached").unwrap();
    guests
}

fn shell(guest: &Guest, line: &str) {
    let output = guest.shell(line).unwrap();
    assert!(output.ok(), "{line}: {}{}", output.stdout, output.stderr);
}

/// Which of the addresses answer, by ping or by TCP.
fn reached(guest: &Guest, targets: &[Ipv4Addr]) -> Vec<String> {
    let mut line = String::new();
    for to in targets {
        line += &format!("(ping -c 3 -i 0.2 -W 1 {to} > /dev/null 2>&1 && echo {to} by ping) & ");
        for port in [PORT, 80, 7443, 22] {
            line += &format!("(nc -w 2 {to} {port} < /dev/null > /dev/null 2>&1 && echo {to} by TCP {port}) & ");
        }
    }
    let output = guest.shell(&(line + "wait")).unwrap().stdout;
    output
        .lines()
        .filter(|line| line.contains(" by "))
        .map(str::to_owned)
        .collect()
}

/// Which of the addresses answer to ARP on an interface.
fn seen_by_arp(guest: &Guest, nic: &str, targets: &[Ipv4Addr]) -> Vec<String> {
    let mut line = String::new();
    for to in targets {
        line += &format!("(arping -c 3 -w 3 -I {nic} {to} > /dev/null 2>&1 && echo {to} by ARP) & ");
    }
    let output = guest.shell(&(line + "wait")).unwrap().stdout;
    output
        .lines()
        .filter(|line| line.contains(" by "))
        .map(str::to_owned)
        .collect()
}

/// The gateway of a link's subnet and its DHCP server.
pub(crate) fn servers(lab: &Lab, slice: &str) -> (Ipv4Addr, Ipv4Addr) {
    let gateway: Ipv4Addr = interface(lab, &format!("{slice}/in.eth1")).gateway.parse().unwrap();
    let [a, b, c, _] = gateway.octets();
    (gateway, Ipv4Addr::new(a, b, c, 254))
}

#[test]
fn guests_find_no_way_through_the_network_node_but_the_one_to_the_internet() {
    let lab = fleet(&Options::default());
    let guests = start(&lab);
    let (red, _) = servers(&lab, "red");
    let (sea, sea_dhcp) = servers(&lab, "sea");
    let of_sea = [
        sea,
        sea_dhcp,
        address(&lab, "sea/in.eth1"),
        address(&lab, "sea/out.eth1"),
    ];
    let of_400 = address(&lab, "sea/out.eth0");
    // The network node listens everywhere, as a daemon of it might.
    let netnode = lab.host(NETNODE).unwrap();
    let server = netnode
        .run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))
        .unwrap()
        .unwrap();
    assert!(
        lab.host("ctl")
            .unwrap()
            .exec(&["ping", "-c1", "-W2", &NETNODE_ADDRESS.to_string()])
            .unwrap()
            .ok()
    );

    // A guest without internet has its default route to its link's gateway, by DHCP; it adds one to the other slice.
    let inside = &guests["red/in"];
    assert!(
        inside
            .shell("ip route")
            .unwrap()
            .stdout
            .contains(&format!("default via {red}"))
    );
    shell(
        inside,
        &format!("ip route replace {sea_dhcp}/32 via {red}; ip route replace {of_400}/32 via {red}"),
    );
    let mut all = of_sea.to_vec();
    all.extend([
        of_400,
        "10.60.7.1".parse().unwrap(),
        INTERNET_ADDRESS,
        UPLINK_ADDRESS,
        NETNODE_ADDRESS,
        CONTROLLER_ADDRESS,
    ]);
    assert_eq!(reached(inside, &all), [""; 0], "red/in through its gateway");

    // Its own gateway answers to echo and ARP, and to nothing else.
    assert_eq!(reached(inside, &[red]), [format!("{red} by ping")]);
    assert_eq!(seen_by_arp(inside, "eth1", &[red]), [format!("{red} by ARP")]);
    let mut foreign = of_sea.to_vec();
    foreign.extend([NETNODE_ADDRESS, UPLINK_ADDRESS, "10.60.7.1".parse().unwrap()]);
    assert_eq!(seen_by_arp(inside, "eth1", &foreign), [""; 0], "red/in by ARP");

    // A guest with internet gets there, and nowhere else.
    let outside = &guests["red/out"];
    assert!(outside.http_get(INTERNET_ADDRESS).unwrap().is_some());
    let mut all = of_sea.to_vec();
    all.extend([UPLINK_ADDRESS, ROUTER_ADDRESS, NETNODE_ADDRESS, CONTROLLER_ADDRESS]);
    assert_eq!(reached(outside, &all), [""; 0], "red/out through eth0");
    let own: Ipv4Addr = "10.60.7.1".parse().unwrap();
    assert_eq!(reached(outside, &[own]), [format!("{own} by ping")]);
    for to in of_sea {
        shell(outside, &format!("ip route replace {to}/32 via {red} dev eth1"));
    }
    shell(
        outside,
        &format!("ip route replace {INTERNET_ADDRESS}/32 via {red} dev eth1"),
    );
    let mut all = of_sea.to_vec();
    all.push(INTERNET_ADDRESS);
    assert_eq!(reached(outside, &all), [""; 0], "red/out through its link's gateway");

    // All of that was for nothing: not one connection came in.
    server.set_nonblocking(true).unwrap();
    assert!(server.accept().is_err(), "a guest reached a server of the network node");
    let through = connections(&lab, &format!("{red}/24"));
    let elsewhere: Vec<&str> = through
        .lines()
        .filter(|line| !line.contains(&format!("dst={red} ")))
        .collect();
    assert_eq!(elsewhere, [""; 0], "the network node let something of the link through");
}

#[test]
fn an_interface_without_a_vlan_reaches_nothing_and_one_with_a_vlan_reaches_only_that() {
    let lab = fleet(&Options::default());
    let guests = start(&lab);
    let (sea_gateway, _) = servers(&lab, "sea");

    // With internet: on VLAN 400, at the reserved address.
    for name in ["red/out", "sea/out"] {
        let eth0 = interface(&lab, &format!("{name}.eth0"));
        assert_eq!((eth0.vlan, eth0.gateway.as_str()), (INTERNET_VLAN, "10.60.7.1"));
        let lease = guests[name].lease("eth0").unwrap().unwrap();
        assert_eq!(lease.address.to_string(), eth0.address);
    }

    // Every port reads back as the API says.
    for slice in api(&lab).slices().unwrap() {
        for (vm, nic) in slice
            .vms
            .iter()
            .flat_map(|vm| vm.interfaces.iter().map(move |nic| (vm, nic)))
        {
            let column = |name| port_column(&lab, &vm.worker, &nic.tap, name);
            let isolated = nic.vlan == 0;
            let seen = (
                column("vlan_mode"),
                column("tag"),
                column("protected"),
                column("trunks"),
            );
            let expected = (
                "access".to_owned(),
                nic.vlan.to_string(),
                isolated.to_string(),
                "[]".to_owned(),
            );
            assert_eq!(seen, expected, "{} of {}/{}", nic.name, vm.slice, vm.name);
        }
    }

    // Without: not even a neighbour on the same worker that wants to, or one that has a VLAN.
    let (inside, mate) = (&guests["red/in"], &guests["red/mate"]);
    assert_eq!(inside.lease("eth0").unwrap(), None);
    for (guest, nic, last) in [
        (inside, "eth0", 1),
        (mate, "eth0", 2),
        (inside, "eth2", 3),
        (mate, "eth1", 4),
    ] {
        shell(guest, &format!("ip address add 192.168.77.{last}/24 dev {nic}"));
    }
    let alone: Vec<Ipv4Addr> = (1..=4).map(|last| Ipv4Addr::new(192, 168, 77, last)).collect();
    assert_eq!(seen_by_arp(inside, "eth0", &alone[1..]), [""; 0], "eth0 without a VLAN");
    assert_eq!(
        seen_by_arp(inside, "eth2", &[alone[1], alone[3]]),
        [""; 0],
        "a data interface without a link"
    );
    let everybody = ["red/out.eth0", "red/out.eth1", "sea/in.eth1", "sea/out.eth1"].map(|name| address(&lab, name));
    let mut everybody = everybody.to_vec();
    everybody.extend([sea_gateway, servers(&lab, "red").0, "10.60.7.1".parse().unwrap()]);
    assert_eq!(seen_by_arp(inside, "eth0", &everybody), [""; 0], "eth0 without a VLAN");
}

#[test]
fn the_uplinks_carry_exactly_what_is_needed_after_every_change() {
    let lab = fleet(&Options::default());
    apply(&lab, TOPOLOGY);
    assert_trunks(&lab, &["red", "sea"]);
    must_trunkctl(
        &lab,
        &["link", "add", "red/in.eth2", "red/mate.eth1", "--name", "local"],
    );
    must_trunkctl(&lab, &["slice", "deploy", "red", "--wait"]);
    let local = slice(&lab, "red")
        .links
        .into_iter()
        .find(|link| link.name == "local")
        .unwrap()
        .vlan;
    assert!(trunk(&lab, "w1").contains(&local.to_string()) && trunk(&lab, NETNODE).contains(&local.to_string()));
    assert!(!trunk(&lab, "w2").contains(&local.to_string()), "w2 has no end of it");
    assert_trunks(&lab, &["red", "sea"]);
    must_trunkctl(&lab, &["link", "remove", "red/local"]);
    must_trunkctl(&lab, &["slice", "deploy", "red", "--wait"]);
    assert_trunks(&lab, &["red", "sea"]);
    must_trunkctl(&lab, &["slice", "undeploy", "sea", "--wait"]);
    assert_trunks(&lab, &["red"]);
    must_trunkctl(&lab, &["slice", "delete", "red", "--wait"]);
    assert_trunks(&lab, &[]);
    for node in lab.layout().nodes() {
        assert_eq!(
            trunk(&lab, &node),
            "[4095]",
            "an empty list would let every VLAN through"
        );
    }
}
