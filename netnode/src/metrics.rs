//! Numbers of this node, added to those of every node.

use prometheus_client::metrics::gauge::Gauge;
use trunkline_proto::daemon::Metrics;
use trunkline_proto::resource::{Facts, Observation};

/// Sums over all VLANs: a label per VLAN would not be bounded by anything but the network's size.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    servers: Gauge,
    leases: Gauge,
    nat_connections: Gauge,
}

impl Counts {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let counts = Self::default();
        let Self {
            servers,
            leases,
            nat_connections,
        } = counts.clone();
        metrics.register(|registry| {
            registry.register(
                "trunkline_netnode_dhcp_servers",
                "DHCP servers that run with the configuration asked for",
                servers,
            );
            registry.register(
                "trunkline_netnode_dhcp_leases",
                "DHCP leases that have not expired",
                leases,
            );
            registry.register(
                "trunkline_netnode_nat_connections_seen",
                "Connections masqueraded since NAT was set up",
                nat_connections,
            );
        });
        counts
    }

    /// From what was last seen.
    pub(crate) fn set<'a>(&self, seen: impl Iterator<Item = &'a Observation>) {
        let (mut servers, mut leases, mut connections) = (0_i64, 0_i64, 0_i64);
        for observation in seen {
            match &observation.facts {
                Some(Facts::Dhcp(facts)) => {
                    servers += i64::from(facts.current);
                    leases += i64::from(facts.leases);
                }
                Some(Facts::Nat(facts)) => connections += i64::try_from(facts.packets).unwrap_or(i64::MAX),
                _ => {}
            }
        }
        self.servers.set(servers);
        self.leases.set(leases);
        self.nat_connections.set(connections);
    }
}
