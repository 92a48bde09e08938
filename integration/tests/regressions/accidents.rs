//! What somebody breaks by hand is seen in the status or is mended before anybody could look; then it is ready again.

use std::time::Duration;

use trunkline_integration::lab::layout::{INTERNET_ADDRESS, NETNODE};
use trunkline_integration::lab::{Lab, Options};
use trunkline_integration::wait::until;
use trunkline_proto::wire::State;

use crate::looks::*;
use crate::streams::Flow;
use crate::support::{LIMIT, apply, await_ready, fleet, guests};

const TOPOLOGY: &str = "
slices:
  - name: shop
    vms:
      - { name: web, worker: w1, internet_enabled: true, data_interfaces_count: 1 }
      - { name: db, worker: w2, internet_enabled: true, data_interfaces_count: 1 }
    links:
      - { name: wire, ends: [web.eth1, db.eth1] }
  - name: plain
    vms:
      - { name: a, worker: w1, data_interfaces_count: 1 }
      - { name: b, worker: w2, data_interfaces_count: 1 }
    links:
      - { name: wire, ends: [a.eth1, b.eth1] }
";

/// For what the kernel, the switch or a process's end tells of: sooner than any pass that comes by itself.
const NOTICED: Duration = Duration::from_secs(15);

/// Something that is broken, and the look that tells whether it is whole.
struct Accident<'a> {
    what: &'a str,
    node: &'a str,
    break_it: Vec<&'a str>,
    look: Vec<&'a str>,
    /// Part of what the look prints while it is whole; after a `!` what it then does not print.
    whole: &'a str,
}

impl Accident<'_> {
    fn is_whole(&self, lab: &Lab) -> Result<(), String> {
        let output = try_on(lab, self.node, &self.look);
        let whole = match self.whole.strip_prefix('!') {
            Some(not) => output.ok() && !output.stdout.contains(not),
            None => output.ok() && output.stdout.contains(self.whole),
        };
        if whole {
            Ok(())
        } else {
            Err(output.stdout + &output.stderr)
        }
    }

    /// What stays broken must become visible; ready again means whole again.
    fn happens(&self, lab: &Lab, within: Duration) {
        self.is_whole(lab)
            .unwrap_or_else(|seen| panic!("{} before: {seen}", self.what));
        on(lab, self.node, &self.break_it);
        until(&format!("{} to be seen or mended", self.what), within, || {
            let seen = status(lab, "shop").unwrap();
            if seen.state() != State::Ready {
                return Ok(());
            }
            self.is_whole(lab)
        })
        .unwrap();
        until(&format!("{} to be mended", self.what), within, || self.is_whole(lab)).unwrap();
        await_ready(lab, "shop");
        self.is_whole(lab)
            .unwrap_or_else(|seen| panic!("{} is called ready: {seen}", self.what));
    }
}

#[test]
fn what_is_broken_by_hand_shows_in_the_status_or_is_mended_and_becomes_ready_again() {
    let lab = fleet(&Options::default());
    apply(&lab, TOPOLOGY);
    let nic = interface(&lab, "shop/web.eth1");
    let (tap, vlan) = (nic.tap.as_str(), nic.vlan.to_string());
    let gateway = format!("gw_vlan{vlan}");
    let gateway_address = format!("{}/24", nic.gateway);
    let server = dhcp_servers(&lab)[&nic.vlan].clone();
    let namespace = format!("ns-dhcp-vlan{vlan}");
    let dhcp_port = format!("dhcp_v{vlan}");
    let tag = vec!["ovs-vsctl", "--timeout=10", "get", "port", tap, "vlan_mode", "tag"];
    let tagged = format!("access\n{vlan}\n");
    let trunk = vec!["ovs-vsctl", "--timeout=10", "get", "port", "trunk0", "trunks"];
    let ovs = |rest: &[&'static str]| [&["ovs-vsctl", "--timeout=10"][..], rest].concat();
    let mut set_tag = vec!["ovs-vsctl", "--timeout=10", "set", "port", tap, "tag=999"];
    let accidents = [
        Accident {
            what: "a deleted TAP",
            node: "w1",
            break_it: vec!["ip", "link", "delete", tap],
            look: vec!["ip", "link", "show", tap],
            whole: ",UP",
        },
        Accident {
            what: "a TAP that is down",
            node: "w1",
            break_it: vec!["ip", "link", "set", tap, "down"],
            look: vec!["ip", "link", "show", tap],
            whole: ",UP",
        },
        Accident {
            what: "another tag",
            node: "w1",
            break_it: set_tag.clone(),
            look: tag.clone(),
            whole: &tagged,
        },
        Accident {
            what: "a port without a tag",
            node: "w1",
            break_it: {
                set_tag.truncate(2);
                set_tag.extend(["clear", "port", tap, "tag", "vlan_mode"]);
                set_tag
            },
            look: tag.clone(),
            whole: &tagged,
        },
        Accident {
            what: "a deleted port",
            node: "w1",
            break_it: vec!["ovs-vsctl", "--timeout=10", "del-port", "br-int", tap],
            look: tag,
            whole: &tagged,
        },
        Accident {
            what: "an open uplink",
            node: "w2",
            break_it: ovs(&["clear", "port", "trunk0", "trunks"]),
            look: trunk.clone(),
            whole: &vlan,
        },
        Accident {
            what: "a VLAN missing from the network node's uplink",
            node: NETNODE,
            break_it: ovs(&["set", "port", "trunk0", "trunks=4095"]),
            look: trunk,
            whole: &vlan,
        },
        Accident {
            what: "a killed DHCP server",
            node: NETNODE,
            break_it: vec!["kill", "-KILL", &server],
            look: vec!["ip", "netns", "pids", &namespace],
            whole: "\n",
        },
        Accident {
            what: "a gateway's address",
            node: NETNODE,
            break_it: vec!["ip", "address", "delete", &gateway_address, "dev", &gateway],
            look: vec!["ip", "address", "show", "dev", &gateway],
            whole: &gateway_address,
        },
        Accident {
            what: "a stranger's address on a gateway",
            node: NETNODE,
            break_it: vec!["ip", "address", "add", "192.0.2.7/24", "dev", &gateway],
            look: vec!["ip", "address", "show", "dev", &gateway],
            whole: "!192.0.2.7",
        },
        Accident {
            what: "a gateway that is down",
            node: NETNODE,
            break_it: vec!["ip", "link", "set", "gw_vlan400", "down"],
            look: vec!["ip", "link", "show", "gw_vlan400"],
            whole: ",UP",
        },
        Accident {
            what: "a flushed table",
            node: NETNODE,
            break_it: vec!["nft", "flush", "table", "inet", "trunkline"],
            look: vec!["nft", "list", "table", "inet", "trunkline"],
            whole: "masquerade",
        },
        Accident {
            what: "a deleted table",
            node: NETNODE,
            break_it: vec!["nft", "delete", "table", "inet", "trunkline"],
            look: vec!["nft", "list", "ruleset"],
            whole: "masquerade",
        },
        Accident {
            what: "forwarding that is off",
            node: NETNODE,
            break_it: vec!["sysctl", "-qw", "net.ipv4.ip_forward=0"],
            look: vec!["cat", "/proc/sys/net/ipv4/ip_forward"],
            whole: "1",
        },
    ];
    for accident in &accidents {
        accident.happens(&lab, NOTICED);
    }
    // Nobody tells of what happens inside a namespace: a later pass sees it.
    let unnoticed = Accident {
        what: "a DHCP server's address",
        node: NETNODE,
        break_it: vec!["ip", "-n", &namespace, "address", "flush", "dev", &dhcp_port],
        look: vec!["ip", "-n", &namespace, "address", "show", "dev", &dhcp_port],
        whole: ".254/24",
    };
    unnoticed.happens(&lab, LIMIT);

    // The other slice stood beside all of it and is as it was; and frames pass where everything was broken.
    await_ready(&lab, "plain");
    assert_trunks(&lab, &["shop", "plain"]);
    let guests = guests(&lab, &["shop"]);
    guests["shop/web"].await_lease("eth1", LIMIT).unwrap();
    guests["shop/db"].await_lease("eth1", LIMIT).unwrap();
    guests["shop/db"].await_lease("eth0", LIMIT).unwrap();
    assert!(guests["shop/web"].ping(address(&lab, "shop/db.eth1")).unwrap());
    assert!(guests["shop/db"].http_get(INTERNET_ADDRESS).unwrap().is_some());
}

#[test]
fn a_foreign_forward_policy_is_named_as_long_as_it_is_there_and_never_edited() {
    let lab = fleet(&Options::default());
    apply(&lab, TOPOLOGY);
    let guests = guests(&lab, &["shop"]);
    guests["shop/web"].await_lease("eth0", LIMIT).unwrap();
    let flow = Flow::to_internet(&guests["shop/web"], &lab);
    on(&lab, NETNODE, &["nft", "add", "table", "ip", "harbour"]);
    let chain = "{ type filter hook forward priority 0; policy drop; }";
    on(
        &lab,
        NETNODE,
        &["nft", "add", "chain", "ip", "harbour", "FORWARD", chain],
    );
    assert!(
        guests["shop/web"].http_get(INTERNET_ADDRESS).unwrap().is_none(),
        "the policy was to kill NAT"
    );
    let seen = await_state(&lab, "shop", State::Degraded, &["nn", "ip harbour FORWARD"]);
    assert!(
        seen.links.iter().all(|link| link.state() == State::Ready),
        "a link does not stand on NAT"
    );
    assert_eq!(status(&lab, "plain").unwrap().state(), State::Ready);
    let table = on(&lab, NETNODE, &["nft", "list", "table", "ip", "harbour"]);
    assert!(table.contains("policy drop") && !table.contains("accept"), "{table}");
    on(&lab, NETNODE, &["nft", "delete", "table", "ip", "harbour"]);
    await_ready(&lab, "shop");
    flow.await_more();
    assert!(guests["shop/web"].http_get(INTERNET_ADDRESS).unwrap().is_some());
}
