//! Who is in the fleet, and at which address.

use std::net::Ipv4Addr;

/// The host with the two bridges: management and trunk.
pub const FABRIC: &str = "fabric";
/// The controller's host.
pub const CONTROLLER: &str = "ctl";
/// The network node.
pub const NETNODE: &str = "nn";
/// The host that plays the internet.
pub const INTERNET: &str = "inet";

/// The internet host's address. Its host is a router as well, so that it is not beside the uplink, where guests reach nobody.
pub const INTERNET_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The internet host's address beside the network node's: the uplink's router.
pub const ROUTER_ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The network node's address on its uplink: what the internet sees of every guest.
pub const UPLINK_ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// The controller's address.
pub const CONTROLLER_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 10, 2);
/// The controller's port.
pub const CONTROLLER_PORT: u16 = 7443;
/// The network node's management address.
pub const NETNODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 10, 3);
/// Another address of the internet host, on the network node's own outer network: a neighbour there, not the internet.
pub const UPLINK_NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

/// More workers than this and the last part of their address overflows.
pub const MOST_WORKERS: u8 = 200;

/// The hosts of one lab.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// How many workers: `w1` to `wN`.
    pub workers: u8,
}

impl Layout {
    /// Names of the workers.
    pub fn workers(self) -> impl Iterator<Item = String> {
        (1..=self.workers).map(|number| format!("w{number}"))
    }

    /// Hosts with a switch: every worker and the network node.
    pub fn nodes(self) -> Vec<String> {
        self.workers().chain([NETNODE.to_owned()]).collect()
    }

    /// Hosts on the management network and their addresses.
    pub fn managed(self) -> Vec<(String, Ipv4Addr)> {
        let workers = (1..=self.workers).map(|number| (format!("w{number}"), Ipv4Addr::new(10, 0, 10, 10 + number)));
        [
            (CONTROLLER.to_owned(), CONTROLLER_ADDRESS),
            (NETNODE.to_owned(), NETNODE_ADDRESS),
        ]
        .into_iter()
        .chain(workers)
        .collect()
    }

    /// All hosts.
    pub fn hosts(self) -> Vec<String> {
        [FABRIC, CONTROLLER]
            .map(str::to_owned)
            .into_iter()
            .chain(self.nodes())
            .chain([INTERNET.to_owned()])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_follow_the_controller_and_the_network_node() {
        let layout = Layout { workers: 2 };
        assert_eq!(layout.hosts(), ["fabric", "ctl", "w1", "w2", "nn", "inet"]);
        let last = layout.managed().pop().unwrap();
        assert_eq!(last, ("w2".to_owned(), Ipv4Addr::new(10, 0, 10, 12)));
    }
}
