//! What the network node gives: leases, and the way out.

use trunkline_proto::{
    Name, PortName, VlanId,
    resource::{Dhcp, Facts, Gateway, Kind, Spec, State as Health},
    wire::{self, hop},
};

use super::{
    Effect,
    site::{Placed, Site, Told, again, find_out, gateway_port, untold},
    step::Step,
};

/// Where a NAT is not right. Its node names the first in this order, so what comes before is right, and what comes after is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Out {
    Nat,
    Uplink,
    Firewall,
    Route,
    /// Some guests have as many connections as they may.
    Crowded,
    Nowhere,
}

impl Out {
    fn of(health: Health, reason: &str) -> Self {
        match health {
            Health::Ready => Self::Nowhere,
            _ if reason.contains("foreign nftables chain") => Self::Firewall,
            _ if reason.contains("default route") => Self::Route,
            _ if reason.contains("connections open within") => Self::Crowded,
            _ if reason.starts_with("the uplink ") => Self::Uplink,
            // That is told where the gateway is.
            Health::Degraded if reason.starts_with("its gateway is not ready") => Self::Nowhere,
            _ => Self::Nat,
        }
    }
}

impl Site<'_> {
    /// True when the network node has a lease for it.
    pub(super) fn has_lease(&self, placed: &Placed, vlan: VlanId) -> bool {
        let told = self
            .netnode_name()
            .map(|node| self.told(node, Kind::Dhcp, PortName::dhcp(vlan).as_str()));
        match told {
            Some(Told::Seen {
                facts: Some(Facts::Dhcp(facts)),
                ..
            }) => lease(placed, facts).is_some(),
            _ => false,
        }
    }

    pub(super) fn lease(&self, placed: &Placed, vlan: VlanId) -> Step {
        let what = format!("{}.{}", placed.vm.name, placed.interface.name);
        let address = placed
            .interface
            .address
            .map(|address| address.to_string())
            .unwrap_or_default();
        let node = self.netnode_name();
        let step = Step::new(hop::Kind::Lease, node, what, format!("the lease of {address}"));
        let Some(node) = node else {
            return step.waits("no network node has joined yet", "");
        };
        let (health, reason, facts) = match self.told(node, Kind::Dhcp, PortName::dhcp(vlan).as_str()) {
            Told::Nothing { health, reason } => return untold(step, node, health, reason).hindering(),
            Told::Seen {
                health, reason, facts, ..
            } => (health, reason, facts),
        };
        let Some(Facts::Dhcp(facts)) = facts else {
            return match health {
                Health::Ready => step.unknown("the node does not say who has a lease", ""),
                Health::Unknown => step.unknown(reason, find_out(node, reason)),
                _ => step.broken(health, Effect::Hinders, reason, again(node, reason)),
            };
        };
        let held = lease(placed, facts);
        let right = held.is_some_and(|held| held.address == address);
        match (health, held) {
            (Health::Unknown, _) => step.unknown(reason, find_out(node, reason)),
            (Health::Failed | Health::Pending, held) => {
                let reason = match held {
                    Some(_) if facts.pid == 0 => format!("{reason}; the lease is good until it ends"),
                    _ => reason.to_owned(),
                };
                let mend = if reason.contains("Address already in use") {
                    let namespace = Dhcp::namespace_of(vlan);
                    format!("on {node} end what holds DHCP's port there: `ip netns exec {namespace} ss -ulnp` names it")
                } else {
                    again(node, &reason)
                };
                step.broken(health, Effect::Hinders, reason, mend)
            }
            _ if right => step.passes(address),
            (Health::Degraded, _) if reason.starts_with(&format!("{address} ")) => {
                step.hinders(reason, "wait until that lease ends, or end it in the guest that has it")
            }
            (_, Some(held)) => step.hinders(
                format!("it has the lease of {}", held.address),
                format!("{}, or wait until it renews", ask(placed)),
            ),
            (_, None) if facts.leases > 0 && facts.held.is_empty() => step.unknown(
                "the node does not say who has a lease",
                format!("upgrade the daemon of {node}"),
            ),
            (_, None) => step.hinders(
                format!("dnsmasq runs and has no lease for {}", placed.interface.mac),
                format!("{}, or set {address} by hand there", ask(placed)),
            ),
        }
    }

    /// From the gateway to the internet.
    pub(super) fn way_out(&self, placed: &Placed, vlan: VlanId) -> Vec<Step> {
        let Some(node) = self.netnode_name() else {
            return Vec::new();
        };
        let gateway = self.gateway(node, vlan);
        let name = format!("nat_vlan{vlan}");
        let uplink = |what: &str| {
            Step::new(
                hop::Kind::Uplink,
                Some(node),
                what,
                "it exists, is up and has the default route",
            )
        };
        let firewall = Step::new(
            hop::Kind::Firewall,
            Some(node),
            "firewalls of others",
            "no foreign chain drops what is forwarded",
        );
        let expected = "forwarding is on, and the table masquerades";
        let nat = Step::new(hop::Kind::Nat, Some(node), name.clone(), expected);
        let (health, reason, facts) = match self.told(node, Kind::Nat, &name) {
            Told::Nothing { health, reason } => {
                let nat = untold(nat, node, health, reason);
                let uplink = uplink("uplink").unknown(NOT_SAID, "");
                return vec![gateway, nat, uplink, firewall.unknown(NOT_SAID, "")];
            }
            Told::Seen {
                health, reason, facts, ..
            } => (health, reason, facts),
        };
        let facts = match facts {
            Some(Facts::Nat(facts)) => facts.clone(),
            _ => wire::NatFacts::default(),
        };
        let out = Out::of(health, reason);
        let name = if facts.uplink.is_empty() {
            "uplink"
        } else {
            facts.uplink.as_str()
        };
        // The rules are everybody's, and each gateway is told to be without them; but the way is shut where they are not right.
        let gateway = match self.told(node, Kind::Gateway, &gateway_port(vlan)) {
            Told::Seen {
                reason: of_gateway,
                facts: Some(Facts::Gateway(facts)),
                ..
            } if out == Out::Nat && of_gateway == reason && reason.contains("nftables") => {
                gateway.passes(facts.addresses.join(" "))
            }
            _ => gateway,
        };
        let nat = match (out, placed.interface.address) {
            (Out::Crowded, Some(own)) => crowded(nat, &own.to_string(), reason),
            _ => masquerade(nat, node, out, health, reason),
        };
        let uplink = leaves(uplink(name), node, name, out, reason);
        let firewall = match out {
            Out::Firewall => firewall.broken(
                health,
                Effect::Stops,
                reason,
                format!(
                    "in that chain on {node} accept what comes from {0} and what goes to it; Trunkline does not change what is others'",
                    gateway_port(vlan)
                ),
            ),
            Out::Nat | Out::Uplink => firewall.unknown(NOT_SAID, ""),
            Out::Route | Out::Crowded | Out::Nowhere => firewall.passes("none drops"),
        };
        vec![gateway, nat, uplink, firewall]
    }

    pub(super) fn gateway(&self, node: &Name, vlan: VlanId) -> Step {
        let port = gateway_port(vlan);
        let address = self.address(node, &port);
        let expected = match &address {
            Some(address) => format!("it is up and has {address}"),
            None => "it is up and has its address".to_owned(),
        };
        let step = Step::new(hop::Kind::Gateway, Some(node), port.clone(), expected);
        let (health, reason, facts) = match self.told(node, Kind::Gateway, &port) {
            Told::Nothing { health, reason } => return untold(step, node, health, reason),
            Told::Seen {
                health, reason, facts, ..
            } => (health, reason, facts),
        };
        match (health, facts) {
            (Health::Ready, Some(Facts::Gateway(facts))) => step.passes(facts.addresses.join(" ")),
            (Health::Ready, _) => step.passes("right"),
            (Health::Unknown, _) => step.unknown(reason, find_out(node, reason)),
            (health, _) => step.broken(health, Effect::Stops, reason, again(node, reason)),
        }
    }

    fn address(&self, node: &Name, port: &str) -> Option<String> {
        match self.spec(node, Kind::Gateway, port)? {
            Spec::Gateway(Gateway { address, .. }) => Some(address.to_string()),
            _ => None,
        }
    }
}

const NOT_SAID: &str = "not told while something before it is wrong";

fn lease<'a>(placed: &Placed, facts: &'a wire::DhcpFacts) -> Option<&'a wire::LeaseFacts> {
    let mac = placed.interface.mac.to_string();
    facts.held.iter().find(|held| held.mac == mac)
}

fn ask(placed: &Placed) -> String {
    format!(
        "in the guest {}/{} ask for one: `udhcpc -i {}`",
        placed.slice, placed.vm.name, placed.interface.name
    )
}

fn masquerade(step: Step, node: &Name, out: Out, health: Health, reason: &str) -> Step {
    match out {
        Out::Nat if health == Health::Unknown => step.unknown(reason, find_out(node, reason)),
        Out::Nat => {
            let mend = if reason.contains("nftables table") && reason.contains("was not made by") {
                format!("rename or delete that table on {node}: it is somebody else's")
            } else if reason.contains("set net/ipv4/ip_forward") {
                format!(
                    "let the daemon of {node} write /proc/sys/net/ipv4/ip_forward (a container or its unit's `ProtectKernelTunables` may \
                     forbid it), or set it to 1 by hand"
                )
            } else if reason.contains("ip_forward") {
                format!(
                    "{node} switches it on by itself; if it stays off, find what sets it there: `grep -r ip_forward /etc/sysctl.*`"
                )
            } else {
                again(node, reason)
            };
            step.broken(health, Effect::Stops, reason, mend)
        }
        _ => step.passes("masquerades"),
    }
}

/// Only new connections of whoever has too many are turned away; a reason does not name all of these.
fn crowded(step: Step, own: &str, reason: &str) -> Step {
    let (named, _) = reason.split_once(" had ").unwrap_or((reason, ""));
    let mut named = named.split(", ");
    if named.any(|one| one == own || one.ends_with(" more")) {
        let mend =
            "end connections in the guest, or raise `nat.connections_per_guest` in the network node's configuration";
        return step.hinders(reason, mend);
    }
    step.passes("masquerades; another guest has as many connections as it may")
}

fn leaves(step: Step, node: &Name, name: &str, out: Out, reason: &str) -> Step {
    match out {
        Out::Nat => step.unknown(NOT_SAID, ""),
        Out::Uplink if reason.contains("does not exist") => step.stops(
            reason,
            format!("set `nat.uplink` in the configuration of {node} to the interface that leads to the internet"),
        ),
        Out::Uplink => step.stops(reason, format!("on {node}: `ip link set {name} up`")),
        Out::Route => {
            let address = if reason.contains("no address") {
                format!("`ip address add ADDRESS/PREFIX dev {name}`, then ")
            } else {
                String::new()
            };
            let mend = format!("on {node}: {address}`ip route add default via ROUTER dev {name}`");
            step.broken(Health::Degraded, Effect::Stops, reason, mend)
        }
        Out::Firewall => step.passes("up"),
        Out::Crowded | Out::Nowhere => step.passes("up, with the default route"),
    }
}
