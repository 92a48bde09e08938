//! Three hundred links with DHCP on one network node.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::{Duration, Instant};

use trunkline_integration::demo::Fleet;
use trunkline_integration::guest::{Guest, Kind, Spec};
use trunkline_integration::lab::Options;
use trunkline_integration::wait::until;
use trunkline_proto::wire::{Slice, State};

use crate::looks::{dhcp_servers, file};
use crate::support::{api, fleet};

const SLICES: usize = 3;
const PAIRS: usize = 7;
/// Of each pair, one link per data interface.
const LINKS: [usize; PAIRS] = [15, 15, 15, 15, 15, 15, 10];
const ALL: usize = 300;
/// Generous: what is measured is told, not judged.
const LONG: Duration = Duration::from_secs(180);

/// Pairs of VMs, one on each worker, joined by as many links as they have data interfaces.
fn topology() -> String {
    let mut text = String::from("slices:\n");
    for slice in 0..SLICES {
        let _ = write!(text, "  - name: s{slice}\n    vlan_pool_size: 100\n    vms:\n");
        for (pair, count) in LINKS.iter().enumerate() {
            for (side, worker) in [("a", "w1"), ("b", "w2")] {
                let _ = writeln!(
                    text,
                    "      - {{ name: {side}{pair}, worker: {worker}, data_interfaces_count: {count} }}"
                );
            }
        }
        text += "    links:\n";
        for (pair, count) in LINKS.iter().enumerate() {
            for number in 1..=*count {
                let _ = writeln!(text, "      - [a{pair}.eth{number}, b{pair}.eth{number}]");
            }
        }
    }
    text
}

/// A guest whose every data interface is on a link gets the address that is kept for it, on each.
fn assert_leased(lab: &trunkline_integration::lab::Lab, slices: &[Slice], name: &str) -> Guest {
    let vm = slices
        .iter()
        .flat_map(|slice| &slice.vms)
        .find(|vm| format!("{}/{}", vm.slice, vm.name) == name)
        .unwrap();
    let guest = Guest::start(lab.host(&vm.worker).unwrap(), Spec::of(vm), Kind::Namespace).unwrap();
    for end in vm.interfaces.iter().filter(|end| !end.link.is_empty()) {
        let lease = guest.await_lease(&end.name, LONG).unwrap();
        assert_eq!(lease.address.to_string(), end.address, "{name} {}", end.name);
    }
    guest
}

/// Also where two VLANs are so far apart that one byte does not tell them apart.
fn assert_nothing_is_shared(slices: &[Slice]) {
    let links = || slices.iter().flat_map(|slice| &slice.links);
    let vlans: BTreeSet<u32> = links().map(|link| link.vlan).collect();
    let subnets: BTreeSet<&str> = links().map(|link| link.subnet.as_str()).collect();
    let interfaces = || slices.iter().flat_map(|slice| &slice.vms).flat_map(|vm| &vm.interfaces);
    let macs: BTreeSet<&str> = interfaces().map(|end| end.mac.as_str()).collect();
    assert_eq!((vlans.len(), subnets.len()), (ALL, ALL));
    assert_eq!(macs.len(), interfaces().count());
    assert!(!vlans.contains(&400) && !vlans.contains(&0));
    assert!(vlans.last().unwrap() - vlans.first().unwrap() > 256, "{vlans:?}");
}

#[test]
fn three_hundred_links_with_dhcp_work_on_one_network_node() {
    let lab = fleet(&Options::default());
    let began = Instant::now();
    Fleet::connect(&lab)
        .unwrap()
        .trunkctl(&["apply", "-f", &file(&lab, &topology()), "--deploy"])
        .unwrap();
    let stored = began.elapsed();
    let api = api(&lab);
    until("300 links to be ready", LONG, || {
        let status = api.status().map_err(|error| error.chain())?;
        let links = status.slices.iter().flat_map(|slice| &slice.links);
        let ready = links.filter(|link| link.state() == State::Ready).count();
        let whole = status.slices.iter().all(|slice| slice.state() == State::Ready);
        if ready == ALL && whole {
            Ok(())
        } else {
            Err(format!(
                "{ready} links; {:?}",
                status.slices.iter().map(|slice| &slice.reason).collect::<Vec<_>>()
            ))
        }
    })
    .unwrap();
    println!(
        "{ALL} links with DHCP: stored after {stored:.1?}, ready after {:.1?}",
        began.elapsed()
    );
    assert_eq!(dhcp_servers(&lab).len(), ALL);

    let slices = api.slices().unwrap();
    let links: usize = slices.iter().map(|slice| slice.links.len()).sum();
    assert_eq!(links, ALL);
    assert_nothing_is_shared(&slices);
    // Of the first links made and of the last.
    let began = Instant::now();
    let guests: Vec<Guest> = ["s0/a0", "s0/b0", "s2/a6", "s2/b6"]
        .map(|name| assert_leased(&lab, &slices, name))
        .into();
    println!("50 leases after {:.1?}", began.elapsed());
    let peer = guests[3].lease("eth10").unwrap().unwrap().address;
    assert!(guests[2].ping(peer).unwrap());
}
