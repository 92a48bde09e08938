//! DHCP: for each VLAN a namespace `ns-dhcp-vlan{v}` with the switch port `dhcp_v{v}` moved into it, and a dnsmasq there.
//!
//! ```text
//!   Dhcp --render--> dnsmasq.conf, hosts, filter --plan--> namespace, nftables, device, files, dnsmasq
//! ```
//!
//! A guest is its MAC. Where tenants share a VLAN, [`filter`] holds each to its own inside DHCP messages.
//!
//! dnsmasq reads its configuration when it starts and the reservations again on SIGHUP. It outlives this program, and is found
//! again by its arguments: only a dnsmasq that was started with a configuration file of ours is ever looked at.
//!
//! On disk, in `dhcp/vlan{v}/` of the state directory: `dnsmasq.conf`, `hosts` (reservations), `leases` (dnsmasq's own; kept over
//! its restarts), `filter.json` (how the namespace's table read when it was written), `server.json` (which process runs with what),
//! `start.log` (what it said when it failed to start).

mod drift;
mod execute;
mod filter;
mod leases;
mod observe;
mod plan;
mod render;
mod table;

pub use drift::drift;
pub use execute::{Error, Servers};
pub use filter::filter;
pub use leases::{Lease, facts as lease_facts, parse as parse_leases};
pub use observe::{Device, NamespaceState, Observed, Server, Site, Started};
pub use plan::{Plan, Removal, Step, Wanted, ahead, has_leftovers, judge, plan};
pub use render::{Place, config, hosts};
