//! One link and the internet, with their guests; and what must not be left of them.

use trunkline_agent::node::Desired;
use trunkline_proto::resource::Reservation;

use super::{Lab, desired, dhcp, gateway, nat, reservation, run, trunk};

pub const WEB_ETH0: &str = "52:54:00:03:ea:00";
pub const WEB_ETH1: &str = "52:54:00:03:ea:01";
pub const DB_ETH1: &str = "52:54:00:03:eb:01";
pub const STRANGER: &str = "02:00:00:00:00:99";

pub fn link_reservations() -> [Reservation; 2] {
    [
        reservation(WEB_ETH1, "10.64.110.10", "web", true),
        reservation(DB_ETH1, "10.64.110.11", "db", false),
    ]
}

pub fn internet_reservations() -> [Reservation; 1] {
    [reservation(WEB_ETH0, "10.60.7.10", "web", false)]
}

/// One link and the internet.
pub fn everything() -> Desired {
    desired([
        trunk(&[110, 400]),
        gateway(110),
        dhcp(110, &link_reservations()),
        gateway(400),
        dhcp(400, &internet_reservations()),
        nat(),
    ])
}

pub fn nothing_of_ours_is_left(lab: &Lab) {
    assert_eq!(
        run(&["nft", "list", "tables"])
            .lines()
            .filter(|l| l.contains("trunkline"))
            .count(),
        0
    );
    assert_eq!(
        run(&["ip", "netns", "list"])
            .lines()
            .filter(|l| l.starts_with("ns-dhcp"))
            .count(),
        0
    );
    let links = run(&["ip", "-br", "link"]);
    assert!(!links.contains("gw_vlan") && !links.contains("dhcp_v"), "{links}");
    let ports = lab.vsctl(&["list-ports", "br-int"]);
    assert!(!ports.contains("gw_vlan") && !ports.contains("dhcp_v"), "{ports}");
    assert_eq!(std::fs::read_dir(lab.state_dir().join("dhcp")).unwrap().count(), 0);
    let dnsmasq =
        trunkline_agent::process::find(|argv| argv.first().is_some_and(|name| name.ends_with("dnsmasq"))).unwrap();
    assert!(dnsmasq.is_empty(), "{dnsmasq:?}");
}
