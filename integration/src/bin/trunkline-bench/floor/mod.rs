//! Floors: the least work that any program would have to do for the same visible result, written as straight as possible.
//! No check, no note of what was done, no second look. What is asked of a floor is, where it can be, what our own daemons have
//! left on a host just before ([`held`]), so that both sides do the same.
//!
//! One that is measured as a process, or that serves, is a [`Part`](crate::part::Part): this program again.
//!
//! ```text
//!   figure                     floor                                          its clients
//!   bulk, remove, one          [`site`]: everything at once, by host          netlink, tap, database, openflow
//!   bulk-script                [`script`]: a command for each step            ip, ovs-vsctl
//!   drift                      [`repair`]: the one operation that mends       netlink, tap, database, openflow, nft, dnsmasq
//!   dhcp                       [`dhcp`], a part on a host                     netlink, database, nft, dnsmasq
//!   resync                     [`sync`], a part on a host                     netlink, database, openflow, rustls
//!   fleet-memory, broadcast    [`bare::streams`], a part                      tonic
//!   storm                      [`bare::handshakes`], two parts                rustls
//!   cold                       [`trees`], a part                              sled
//!   intents                    [`acknowledge`], a part                        tonic, a file
//! ```
//!
//! The clients are raw, and there is one of each: [`netlink`] and [`tap`] for the kernel, [`database`] and [`openflow`] for the switch.

pub(crate) mod acknowledge;
pub(crate) mod bare;
pub(crate) mod database;
pub(crate) mod dhcp;
pub(crate) mod held;
pub(crate) mod netlink;
pub(crate) mod openflow;
pub(crate) mod repair;
pub(crate) mod script;
pub(crate) mod site;
pub(crate) mod sync;
pub(crate) mod tap;
pub(crate) mod trees;

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use trunkline_integration::LabError;

/// The bridge that our daemons keep.
pub(crate) const BRIDGE: &str = "br-int";
/// Where its switch listens, as the host sees it: the database, and the bridge itself.
pub(crate) const DATABASE: &str = "/run/openvswitch/db.sock";
pub(crate) const MANAGEMENT: &str = "/run/openvswitch/br-int.mgmt";
/// The alias that our own TAPs have, and the name of our mark and our table.
const ALIAS: &str = "trunkline";
const MTU: u32 = 1500;

/// Does all jobs at once; answers how many seconds it took.
fn at_once<T: Send>(
    jobs: impl Iterator<Item = T>,
    work: impl Fn(T) -> Result<(), LabError> + Sync,
) -> Result<f64, LabError> {
    let work = &work;
    let began = Instant::now();
    std::thread::scope(|scope| {
        let running: Vec<_> = jobs.map(|job| scope.spawn(move || work(job))).collect();
        running.into_iter().try_for_each(|one| {
            let died = |_| LabError::Other("a floor's thread died".to_owned());
            one.join().map_err(died)?
        })
    })?;
    Ok(began.elapsed().as_secs_f64())
}

/// Changes nftables in the network of the calling thread.
fn nft(arguments: &[&str]) -> Result<(), LabError> {
    let status = Command::new("nft").args(arguments).status();
    let status = status.map_err(LabError::io("cannot start nft"))?;
    if status.success() {
        Ok(())
    } else {
        Err(LabError::Other(format!("nft ended with {status}")))
    }
}

/// Starts a DHCP server in the network of the calling thread.
fn dnsmasq(configuration: &str) -> Result<Child, LabError> {
    Command::new("dnsmasq")
        .args(["--keep-in-foreground", &format!("--conf-file={configuration}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(LabError::io("cannot start dnsmasq"))
}
