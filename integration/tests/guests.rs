//! Guests on TAPs and ports made by hand: both kinds get a lease and reach each other across two workers.
#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use trunkline_integration::guest::{Guest, Kind, Nic, Spec};
use trunkline_integration::lab::{Host, Lab, Options};

const LEASE_LIMIT: Duration = Duration::from_secs(30);
const VLAN: &str = "tag=110";

fn spec(worker: &str, vm_id: u32) -> Spec {
    let nic = |index: u32| Nic {
        name: format!("eth{index}"),
        tap: format!("tap_{vm_id}_eth{index}"),
        mac: format!("52:54:00:00:{:02x}:{index:02x}", vm_id % 256),
        mtu: 1500,
    };
    Spec {
        name: format!("by-hand/vm{vm_id}"),
        vm_id,
        worker: worker.to_owned(),
        nics: vec![nic(0), nic(1)],
        netdev: Vec::new(),
    }
}

fn bridge(host: &Host) {
    let argv = [
        "ovs-vsctl",
        "--timeout=10",
        "add-br",
        "br-int",
        "--",
        "set",
        "bridge",
        "br-int",
        "datapath_type=netdev",
    ];
    host.must(&argv).unwrap();
    host.must(&[
        "ovs-vsctl",
        "--timeout=10",
        "add-port",
        "br-int",
        "trunk0",
        "trunks=110",
    ])
    .unwrap();
}

fn taps(host: &Host, spec: &Spec) {
    for nic in &spec.nics {
        host.must(&["ip", "tuntap", "add", "dev", &nic.tap, "mode", "tap"])
            .unwrap();
        host.must(&["ip", "link", "set", &nic.tap, "up"]).unwrap();
    }
    host.must(&[
        "ovs-vsctl",
        "--timeout=10",
        "add-port",
        "br-int",
        &spec.nics[1].tap,
        VLAN,
    ])
    .unwrap();
}

/// A DHCP server in a namespace of the network node, as the seed has it.
fn dhcp(host: &Host) -> trunkline_integration::lab::Running {
    let port = [
        "ovs-vsctl",
        "--timeout=10",
        "add-port",
        "br-int",
        "dhcp",
        VLAN,
        "--",
        "set",
        "interface",
        "dhcp",
        "type=internal",
    ];
    host.must(&port).unwrap();
    host.must(&["ip", "netns", "add", "dhcp"]).unwrap();
    host.must(&["ip", "link", "set", "dhcp", "netns", "dhcp"]).unwrap();
    host.must(&["ip", "-n", "dhcp", "address", "add", "10.64.110.254/24", "dev", "dhcp"])
        .unwrap();
    host.must(&["ip", "-n", "dhcp", "link", "set", "dhcp", "up"]).unwrap();
    let argv = [
        "ip",
        "netns",
        "exec",
        "dhcp",
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--port=0",
        "--no-ping",
        "--dhcp-range=10.64.110.10,10.64.110.250,1h",
        "--dhcp-option=3,10.64.110.1",
        "--dhcp-option=6,8.8.8.8",
        "--dhcp-host=52:54:00:00:e9:01,10.64.110.10,first",
        "--dhcp-host=52:54:00:00:ea:01,10.64.110.11,second",
        "--dhcp-leasefile=/run/leases",
        "--pid-file=/run/dnsmasq.pid",
        "--user=root",
        "--log-facility=-",
    ];
    host.spawn("dnsmasq", &argv).unwrap()
}

fn start(lab: &Lab, worker: &str, vm_id: u32, kind: Kind) -> Guest {
    let host: &Arc<Host> = lab.host(worker).unwrap();
    let spec = spec(worker, vm_id);
    bridge(host);
    taps(host, &spec);
    Guest::start(host, spec, kind).unwrap()
}

#[test]
fn both_kinds_of_guest_get_leases_and_reach_each_other() {
    let lab = Lab::start(&Options {
        daemons: false,
        ..Options::default()
    })
    .unwrap();
    bridge(lab.host("nn").unwrap());
    let _dnsmasq = dhcp(lab.host("nn").unwrap());
    let namespace = start(&lab, "w1", 1001, Kind::Namespace);
    let machine = start(&lab, "w2", 1002, Kind::Machine);

    let (first, second) = (Ipv4Addr::new(10, 64, 110, 10), Ipv4Addr::new(10, 64, 110, 11));
    for (guest, address, name) in [(&namespace, first, "first"), (&machine, second, "second")] {
        let lease = guest.await_lease("eth1", LEASE_LIMIT).unwrap();
        assert_eq!(lease.address, address);
        assert_eq!(lease.routers, [Ipv4Addr::new(10, 64, 110, 1)]);
        assert_eq!(lease.dns, [Ipv4Addr::new(8, 8, 8, 8)]);
        assert_eq!((lease.seconds, lease.prefix, lease.hostname.as_str()), (3600, 24, name));
        assert_eq!(guest.lease("eth0").unwrap(), None, "eth0 is on no VLAN");
        let routes = guest.shell("ip route").unwrap().stdout;
        let routes = routes.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            routes.contains("default via 10.64.110.1 dev eth1 metric 101"),
            "{routes}"
        );
    }
    assert!(namespace.ping(second).unwrap());
    assert!(machine.ping(first).unwrap());
    assert!(!machine.ping(Ipv4Addr::new(10, 64, 110, 99)).unwrap());

    namespace.tcp_serve(5000, "from-namespace").unwrap();
    machine.tcp_serve(5001, "from-machine").unwrap();
    assert_eq!(
        machine.tcp_read(first, 5000).unwrap().as_deref(),
        Some("from-namespace")
    );
    assert_eq!(
        namespace.tcp_read(second, 5001).unwrap().as_deref(),
        Some("from-machine")
    );
    assert_eq!(machine.tcp_read(first, 5009).unwrap(), None);

    let output = machine
        .exec(&["sh", "-c", "echo out; echo 'a \"b\" $c' >&2; exit 7"])
        .unwrap();
    assert_eq!(
        (output.status, output.stdout.as_str(), output.stderr.as_str()),
        (7, "out\n", "a \"b\" $c\n")
    );

    // A guest that is gone leaves nothing of itself on the worker.
    drop(namespace);
    let worker = lab.host("w1").unwrap();
    assert_eq!(worker.must(&["ip", "netns", "list"]).unwrap(), "");
}

#[test]
fn a_guest_without_its_taps_says_what_to_do() {
    let lab = Lab::start(&Options {
        workers: 1,
        daemons: false,
        ..Options::default()
    })
    .unwrap();
    let error = Guest::start(lab.host("w1").unwrap(), spec("w1", 1001), Kind::Namespace)
        .err()
        .unwrap();
    assert!(error.to_string().contains("w1 has no TAP tap_1001_eth0"), "{error}");
    assert!(error.to_string().contains("deploy its slice first"), "{error}");
}
