//! Makes a plan true.

use std::collections::BTreeMap;

use futures::StreamExt;
use trunkline_agent::netlink::{self, Handle, LinkChange};
use trunkline_agent::netns;
use trunkline_proto::VlanId;
use trunkline_proto::daemon::failpoint;

use super::plan::{ALIAS, DevicePlan, Plan, Step};
use crate::ip_net;

/// Gateways worked on at once.
const AT_ONCE: usize = 32;

/// Why a gateway could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel said no.
    #[error("the gateway's device")]
    Netlink(#[from] netlink::Error),
    /// A setting could not be written.
    #[error("the gateway's settings")]
    Setting(#[from] netns::Error),
}

/// What failed.
#[derive(Debug, Default)]
pub struct Failures {
    /// By gateway.
    pub gateways: BTreeMap<VlanId, Error>,
    /// Taking away devices without a port.
    pub orphans: Option<Error>,
}

/// Does it, each gateway for itself.
pub async fn execute(plan: &Plan, netlink: &Handle) -> Failures {
    let Plan {
        orphans,
        devices,
        blocked: _,
    } = plan;
    failpoint::reach("gateway.before-batch");
    let indexes: Vec<u32> = orphans.values().copied().collect();
    let orphans = netlink.delete_many(&indexes).await.err().map(Error::from);
    let each: Vec<_> = devices
        .iter()
        .map(|(vlan, device)| async move { (*vlan, set_up(device, netlink).await) })
        .collect();
    let results: Vec<_> = futures::stream::iter(each).buffer_unordered(AT_ONCE).collect().await;
    failpoint::reach("gateway.after-batch");
    let gateways = results
        .into_iter()
        .filter_map(|(vlan, result)| Some((vlan, result.err()?)))
        .collect();
    Failures { gateways, orphans }
}

async fn set_up(device: &DevicePlan, netlink: &Handle) -> Result<(), Error> {
    let DevicePlan { port, index, steps } = device;
    let index = *index;
    for step in steps {
        let change = match step {
            Step::DisableIpv6 => {
                netns::write_sysctl(None, &format!("net/ipv6/conf/{port}/disable_ipv6"), "1").await?;
                continue;
            }
            Step::IgnoreForeignArp => {
                netns::write_sysctl(None, &format!("net/ipv4/conf/{port}/arp_ignore"), "1").await?;
                continue;
            }
            Step::RefuseForeignSources => {
                netns::write_sysctl(None, &format!("net/ipv4/conf/{port}/rp_filter"), "1").await?;
                continue;
            }
            Step::RemoveAddress(address) => {
                netlink.delete_address(index, *address).await?;
                continue;
            }
            Step::AddAddress(address) => {
                netlink.add_address(index, ip_net(*address)).await?;
                continue;
            }
            Step::SetAlias => LinkChange {
                alias: Some(ALIAS.to_owned()),
                ..LinkChange::default()
            },
            Step::SetMac(mac) => LinkChange {
                mac: Some(*mac),
                ..LinkChange::default()
            },
            Step::SetMtu(mtu) => LinkChange {
                mtu: Some(u32::from(*mtu)),
                ..LinkChange::default()
            },
            Step::SetUp => LinkChange {
                up: Some(true),
                ..LinkChange::default()
            },
        };
        netlink.change(index, &change).await?;
    }
    Ok(())
}
