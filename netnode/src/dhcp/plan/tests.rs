#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;
use trunkline_agent::process::Identity;
use trunkline_proto::Mac;

use super::*;
use crate::dhcp::observe::Started;
use crate::dhcp::{Lease, Place, filter as rendered, render};
use crate::nft::{self, Noted};
use crate::testing::{dhcp, reservation, vlan};

fn wanted(id: u32, guests: u32) -> Wanted {
    let place = Place {
        hosts: "/s/hosts".into(),
        leases: "/s/leases".into(),
        user: "nobody".into(),
    };
    let reservations = (0..guests)
        .map(|n| reservation(id, 1000 + n, 1, "web", false))
        .collect();
    let dhcp = dhcp(id, reservations);
    Wanted {
        config: render::config(&dhcp, &place),
        hosts: render::hosts(&dhcp),
        filter: rendered(&dhcp),
        dhcp,
    }
}

fn all(ids: &BTreeSet<u32>, guests: u32) -> BTreeMap<VlanId, Wanted> {
    ids.iter().map(|id| (vlan(*id), wanted(*id, guests))).collect()
}

fn process(pid: u32) -> Identity {
    Identity { pid, start_time: 1 }
}

/// A device as the switch makes it.
fn fresh(index: u32) -> Device {
    Device {
        index,
        up: false,
        carrier: true,
        mtu: 1500,
        mac: None,
        addresses: Vec::new(),
    }
}

/// What the executor does, done to the model.
fn apply(plan: &Plan, wanted: &BTreeMap<VlanId, Wanted>, host: &mut Observed) {
    for (vlan, Removal { stop, namespace, files }) in &plan.remove {
        let site = host.sites.get_mut(vlan).unwrap();
        assert!(
            stop.iter().all(|p| site.processes().any(|own| own == *p)),
            "a stranger's process"
        );
        assert!(
            !namespace || site.namespace == NamespaceState::Ours,
            "a stranger's namespace"
        );
        assert!(!files || site.has_files);
        let foreign = site.namespace == NamespaceState::Foreign;
        // The device goes with its namespace.
        *site = Site {
            namespace: if foreign {
                NamespaceState::Foreign
            } else {
                NamespaceState::Absent
            },
            ..Site::default()
        };
    }
    for (vlan, steps) in &plan.change {
        let site = host.sites.entry(*vlan).or_default();
        for step in steps {
            change(step, &wanted[vlan], site);
        }
    }
}

fn change(step: &Step, wanted: &Wanted, site: &mut Site) {
    match step {
        Step::Stop(identity) => {
            site.strays.retain(|stray| stray != identity);
            site.server = site.server.filter(|server| server.started.identity != *identity);
        }
        Step::RestoreNamespace(pid) => {
            assert_eq!(site.namespace, NamespaceState::Hidden(*pid));
            site.namespace = NamespaceState::Ours;
        }
        Step::CreateNamespace => {
            assert_eq!(site.namespace, NamespaceState::Absent, "made over another's");
            site.namespace = NamespaceState::Ours;
        }
        Step::QuietNamespace => site.quiet = true,
        Step::SetLoopbackUp => site.loopback_up = true,
        Step::SetFilter => (site.table, site.noted) = stands(wanted.filter.as_ref().unwrap()),
        Step::DropFilter => (site.table, site.noted) = (nft::State::Absent, None),
        Step::DeleteDeadDevice(index) => assert_eq!(site.device.take().unwrap().index, *index),
        Step::MoveDevice(index) => {
            assert!(
                site.device.is_none() && site.namespace == NamespaceState::Ours,
                "no place for it"
            );
            assert_eq!(site.outside.take(), Some(*index));
            assert_eq!(
                wanted.filter.is_some(),
                site.table != nft::State::Absent,
                "in before it was filtered"
            );
            site.device = Some(fresh(index + 1000));
        }
        Step::SetMac(mac) => site.device.as_mut().unwrap().mac = Some(*mac),
        Step::SetMtu(mtu) => site.device.as_mut().unwrap().mtu = u32::from(*mtu),
        Step::RemoveAddress(address) => site.device.as_mut().unwrap().addresses.retain(|held| held != address),
        Step::AddAddress(address) => site.device.as_mut().unwrap().addresses.push(ip_net(*address)),
        Step::SetUp => {
            assert!(site.quiet, "up before it was quiet");
            site.device.as_mut().unwrap().up = true;
        }
        Step::WriteConfig => (site.config, site.has_files) = (Some(Fingerprint::of(&wanted.config)), true),
        Step::WriteHosts => (site.hosts, site.has_files) = (Some(Fingerprint::of(&wanted.hosts)), true),
        Step::DropLeases(taken) => {
            assert!(site.server.is_none(), "it would not see that");
            site.leases.retain(|lease| !taken.contains(lease));
        }
        Step::Start => {
            assert!(site.server.is_none() && site.strays.is_empty(), "two for one VLAN");
            let device = site.device.as_ref().unwrap();
            assert!(
                device.up && !device.addresses.is_empty(),
                "started before its device was ready"
            );
            let (config, hosts) = (site.config.unwrap(), site.hosts.unwrap());
            let started = Started {
                identity: process(7),
                config,
                hosts,
                device: device.index,
            };
            site.server = Some(Server { started, serving: true });
        }
        Step::Reload(_) => site.server.as_mut().unwrap().started.hosts = site.hosts.unwrap(),
    }
}

/// The table as it is after this batch.
fn stands(batch: &str) -> (nft::State, Option<Noted>) {
    let content = Some(Fingerprint::of(batch));
    let noted = Noted {
        rendered: content,
        readback: content,
    };
    (nft::State::Ours(Fingerprint::of(batch)), Some(noted))
}

/// Any half-made or half-broken site, but for a stranger's namespace.
fn sites() -> impl Strategy<Value = Site> {
    (any::<u32>(), 0_u32..3).prop_map(|(bits, guests)| {
        let has = |bit: u32| bits & (1 << bit) != 0;
        let ours = has(0);
        let content = wanted(110, guests);
        let (config, hosts) = (Fingerprint::of(&content.config), Fingerprint::of(&content.hosts));
        let filter = stands(wanted(400, guests).filter.as_ref().unwrap());
        let device = (ours && has(1)).then(|| Device {
            up: has(2),
            mac: has(3).then_some([2, 0, 0, 0, 0, 1]),
            addresses: if has(4) {
                vec!["192.168.9.9/24".parse().unwrap()]
            } else {
                Vec::new()
            },
            ..fresh(40)
        });
        let started = Started {
            identity: process(5),
            config,
            hosts,
            device: if has(5) { 40 } else { 39 },
        };
        Site {
            namespace: if ours {
                NamespaceState::Ours
            } else {
                NamespaceState::Absent
            },
            quiet: has(6),
            loopback_up: has(7),
            outside: (device.is_none() || has(8)).then_some(41),
            device,
            config: has(9).then_some(config),
            hosts: has(10).then_some(hosts),
            has_files: has(9) || has(10),
            server: has(11).then_some(Server {
                started,
                serving: has(12),
            }),
            table: if ours && has(14) { filter.0 } else { nft::State::Absent },
            noted: filter.1.filter(|_| has(15)),
            lost: false,
            strays: if has(13) { vec![process(6)] } else { Vec::new() },
            leases: Vec::new(),
        }
    })
}

proptest! {
    #[test]
    fn applied_to_the_model_the_next_plan_is_empty(found in proptest::collection::vec(sites(), 3), ids in proptest::sample::subsequence(vec![110_u32, 111, 112, 400], 0..4)) {
        let ids = ids.into_iter().collect();
        let wanted = all(&ids, 1);
        let mut host = Observed { sites: [110, 111, 400].map(vlan).into_iter().zip(found).collect(), ..Observed::default() };
        // The switch has made its ports by now.
        for vlan in wanted.keys() {
            let site = host.sites.entry(*vlan).or_default();
            if site.device.is_none() && site.outside.is_none() {
                site.outside = Some(77);
            }
        }
        apply(&plan(&wanted, &host), &wanted, &mut host);
        prop_assert_eq!(plan(&wanted, &host), Plan::default());
        for (vlan, wanted) in &wanted {
            prop_assert_eq!(judge(wanted, &host.sites[vlan], Some(3)).0, State::Ready);
        }
    }

    #[test]
    fn a_strangers_namespace_is_neither_used_nor_deleted(found in sites(), is_wanted: bool) {
        let found = Site { namespace: NamespaceState::Foreign, device: None, ..found };
        let wanted = all(&if is_wanted { BTreeSet::from([110]) } else { BTreeSet::new() }, 1);
        let host = Observed { sites: BTreeMap::from([(vlan(110), found)]), ..Observed::default() };
        let plan = plan(&wanted, &host);
        prop_assert!(plan.change.is_empty());
        prop_assert!(plan.remove.values().all(|removal| !removal.namespace));
        if is_wanted {
            prop_assert!(plan.blocked[&vlan(110)].contains("ns-dhcp-vlan110"));
        }
    }
}

/// A site that is as `wanted` says.
fn good(wanted: &Wanted) -> Site {
    let mut host = Observed::default();
    host.sites.insert(
        wanted.dhcp.vlan,
        Site {
            outside: Some(9),
            ..Site::default()
        },
    );
    let all = BTreeMap::from([(wanted.dhcp.vlan, wanted.clone())]);
    apply(&plan(&all, &host), &all, &mut host);
    host.sites.remove(&wanted.dhcp.vlan).unwrap()
}

#[test]
fn what_is_begun_before_the_device_is_there_is_not_done_again() {
    let all = all(&BTreeSet::from([110, 400]), 2);
    let mut host = Observed::default();
    let begun = ahead(&all, &host, |_| false);
    assert_eq!(begun.change.len(), 2);
    apply(&begun, &all, &mut host);
    assert!(ahead(&all, &host, |_| false).is_empty());
    for site in host.sites.values_mut() {
        site.outside = Some(7);
    }
    let rest = plan(&all, &host);
    let again = |step: &Step| begun.change.values().flatten().any(|begun| begun == step);
    assert!(!rest.change.values().flatten().any(again), "{rest:?}");
    apply(&rest, &all, &mut host);
    assert!(plan(&all, &host).is_empty());
}

#[test]
fn nothing_is_begun_where_something_is_in_the_way() {
    let all = all(&BTreeSet::from([110]), 1);
    assert!(ahead(&all, &Observed::default(), |port| port.as_str() == "dhcp_v110").is_empty());
    let with = |namespace| Observed {
        sites: BTreeMap::from([(
            vlan(110),
            Site {
                namespace,
                ..Site::default()
            },
        )]),
        ..Observed::default()
    };
    for namespace in [NamespaceState::Foreign, NamespaceState::Hidden(7), NamespaceState::Ours] {
        assert!(ahead(&all, &with(namespace), |_| false).is_empty(), "{namespace:?}");
    }
    let unknown = Observed {
        unknown: BTreeMap::from([(vlan(110), "it cannot be read".to_owned())]),
        ..Observed::default()
    };
    assert!(ahead(&all, &unknown, |_| false).is_empty());
}

#[test]
fn new_reservations_alone_are_a_reload_and_not_a_restart() {
    let site = good(&wanted(110, 1));
    let steps = steps(&wanted(110, 2), &site);
    assert!(matches!(steps[..], [Step::WriteHosts, Step::Reload(_)]), "{steps:?}");
}

#[test]
fn a_filter_that_somebody_changed_is_written_again_and_one_of_a_stranger_blocks() {
    let wanted = wanted(400, 1);
    let mut site = good(&wanted);
    for changed in [nft::State::Absent, nft::State::Ours(Fingerprint::of("other"))] {
        site.table = changed;
        assert_eq!(steps(&wanted, &site), [Step::SetFilter]);
        assert_eq!(judge(&wanted, &site, Some(3)).0, State::Failed);
    }
    site.table = nft::State::Foreign;
    assert!(blocked(&wanted, &site).unwrap().contains("inet trunkline"));
}

#[test]
fn another_configuration_is_a_restart() {
    let before = wanted(110, 1);
    let mut after = before.clone();
    after.config.push_str("dhcp-option=option:mtu,1400\n");
    let steps = steps(&after, &good(&before));
    assert!(
        matches!(steps[..], [Step::Stop(_), Step::WriteConfig, Step::Start]),
        "{steps:?}"
    );
}

#[test]
fn a_dead_device_is_deleted_before_its_successor_is_moved_in_and_served() {
    let wanted = wanted(110, 1);
    let mut site = good(&wanted);
    let dead = site.device.as_ref().unwrap().index;
    site.outside = Some(50);
    let steps = steps(&wanted, &site);
    let position = |step: &Step| steps.iter().position(|s| s == step).unwrap();
    assert!(position(&Step::DeleteDeadDevice(dead)) < position(&Step::MoveDevice(50)));
    assert!(
        matches!(steps.first(), Some(Step::Stop(_))),
        "its socket is bound to the dead one"
    );
    assert_eq!(steps.last(), Some(&Step::Start));
}

#[test]
fn a_server_says_what_is_wrong() {
    let wanted = wanted(110, 1);
    let ready = good(&wanted);
    let check = |site: &Site, ofport: Option<i64>| {
        let (state, reason, _) = judge(&wanted, site, ofport);
        (state, reason)
    };
    assert_eq!(check(&ready, Some(2)), (State::Ready, String::new()));
    assert_eq!(check(&ready, Some(-1)).1, "the switch has not taken the port dhcp_v110");
    let dead = Site {
        server: None,
        ..ready.clone()
    };
    assert_eq!(check(&dead, Some(2)), (State::Failed, "dnsmasq does not run".into()));
    let mut unplugged = ready.clone();
    unplugged.device.as_mut().unwrap().carrier = false;
    assert!(check(&unplugged, Some(2)).1.contains("ovs-vswitchd"));
    let taken = Lease {
        mac: "02:00:00:00:00:07".parse().unwrap(),
        address: wanted.dhcp.reservations[0].address,
        expires: 0,
    };
    let (state, reason) = check(
        &Site {
            leases: vec![taken],
            ..ready.clone()
        },
        Some(2),
    );
    assert!(
        state == State::Degraded && reason.contains("leased to 02:00:00:00:00:07"),
        "{reason}"
    );
    let own = Lease {
        mac: wanted.dhcp.reservations[0].mac,
        ..taken
    };
    assert_eq!(
        check(
            &Site {
                leases: vec![own],
                ..ready
            },
            Some(2)
        )
        .0,
        State::Ready
    );
}

#[test]
fn a_removed_guests_lease_does_not_keep_an_address_from_its_heir() {
    let removed: Mac = "52:54:00:0f:42:00".parse().unwrap();
    let stranger: Mac = "02:00:00:00:00:07".parse().unwrap();
    for (id, mac, taken) in [
        (400, removed, true),
        (400, stranger, true),
        (110, removed, true),
        // It may still be there, and nobody promised it an end before its lease's.
        (110, stranger, false),
    ] {
        let wanted = wanted(id, 2);
        let lease = |mac, n: usize| Lease {
            mac,
            address: wanted.dhcp.reservations[n].address,
            expires: 0,
        };
        let kept = lease(wanted.dhcp.reservations[1].mac, 1);
        let mut site = Site {
            leases: vec![lease(mac, 0), kept],
            ..good(&wanted)
        };
        for step in steps(&wanted, &site) {
            change(&step, &wanted, &mut site);
        }
        assert!(steps(&wanted, &site).is_empty());
        assert_eq!(!site.leases.contains(&lease(mac, 0)), taken, "{id} {mac}");
        assert!(site.leases.contains(&kept));
    }
}

#[test]
fn a_namespace_that_is_not_mounted_any_more_is_mounted_before_anything_else() {
    let wanted = wanted(110, 1);
    let site = Site {
        namespace: NamespaceState::Hidden(7),
        device: None,
        ..good(&wanted)
    };
    assert_eq!(blocked(&wanted, &site), None);
    assert_eq!(steps(&wanted, &site), [Step::RestoreNamespace(7)]);
    let removal = removal(&site).unwrap();
    assert!(removal.namespace && !removal.stop.is_empty());
}

#[test]
fn what_a_wanted_server_has_left_from_before_is_told() {
    let wanted = wanted(110, 1);
    let left = |change: &dyn Fn(&mut Site)| {
        let mut site = good(&wanted);
        change(&mut site);
        let observed = Observed {
            sites: BTreeMap::from([(wanted.dhcp.vlan, site)]),
            ..Observed::default()
        };
        has_leftovers(&BTreeMap::from([(wanted.dhcp.vlan, wanted.clone())]), &observed)
    };
    assert!(!left(&|_| {}));
    assert!(!left(&|site| site.loopback_up = false), "nothing from before");
    let foreign = "192.168.9.9/24".parse().unwrap();
    assert!(left(&|site| site.device.as_mut().unwrap().addresses.push(foreign)));
    assert!(left(
        &|site| site.server.as_mut().unwrap().started.hosts = Fingerprint::of("old")
    ));
    assert!(left(
        &|site| site.server.as_mut().unwrap().started.config = Fingerprint::of("old")
    ));
    assert!(left(&|site| site.strays.push(process(6))));
    assert!(left(&|site| site.device = None), "blocked, and a dnsmasq runs");
    assert!(!left(&|site| *site = Site::default()), "blocked, and nothing is there");
}

#[test]
fn a_server_that_cannot_be_looked_at_is_left_as_it_is() {
    let wanted = all(&BTreeSet::from([110]), 1);
    let host = Observed {
        unknown: BTreeMap::from([(vlan(110), "no".to_owned())]),
        ..Observed::default()
    };
    assert!(plan(&wanted, &host).is_empty());
}
