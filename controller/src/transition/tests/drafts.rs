//! What an apply keeps, and what it changes.

use std::collections::BTreeMap;

use trunkline_proto::{LinkSubnet, VlanId};

use crate::{
    model::NodeRole,
    testing::*,
    transition::{Action, Intent, Rejection},
    view,
};

fn vlan(id: u32) -> VlanId {
    VlanId::try_from(id).unwrap()
}

#[test]
fn a_link_takes_the_lowest_free_vlan_of_the_pool_and_nothing_is_provisioned() {
    let mut world = World::new();
    let step = world.apply(vec![shop("shop")], false).unwrap();
    let link = world.link("shop", "web-eth1--db-eth1");
    assert_eq!(
        (link.vlan.get(), link.subnet.to_string()),
        (100, "10.64.100.0/24".into())
    );
    let web = world.vm("shop", "web");
    assert_eq!(web.id.get(), 1000);
    assert_eq!(web.interfaces[0].vlan, Some(VlanId::INTERNET));
    assert_eq!(web.interfaces[0].address.unwrap().to_string(), "10.60.7.10");
    assert_eq!(web.interfaces[1].vlan, Some(vlan(100)));
    assert_eq!(web.interfaces[1].tap.as_str(), "tap_1000_eth1");
    assert_eq!(world.vm("shop", "db").interfaces[0].vlan, None);
    assert!(step.touched.is_empty());
    assert_eq!(world.state.desired.nodes().count(), 0);
}

#[test]
fn applying_the_same_twice_changes_nothing() {
    let mut world = World::new();
    let file = || vec![shop("a"), shop("b")];
    world.apply(file(), true).unwrap();
    let before = world.state.clone();
    let step = world.apply(file(), true).unwrap();
    assert!(step.is_noop() && step.changes.is_empty() && step.events.is_empty());
    assert_eq!(step.outcome.number, Some(1));
    assert_eq!(world.state, before);
}

#[test]
fn the_event_of_a_draft_names_what_changed_up_to_a_few_things() {
    let mut world = World::new();
    let step = world.apply(vec![shop("shop")], false).unwrap();
    let expected = "draft of slice shop: slice created, vm db created, vm web created, link web-eth1--db-eth1 created";
    assert_eq!(step.events[0].message, expected);
    let many = (0..20).map(|n| vm(&format!("vm-{n:02}"), "w1", 0)).collect();
    let step = world.apply(vec![slice("lab", many, Vec::new())], false).unwrap();
    let message = &step.events[0].message;
    assert!(message.ends_with("vm vm-03 created and 16 more"), "{message}");
}

#[test]
fn what_was_asked_for_can_be_read_back_and_applied() {
    let mut world = World::new();
    let mut spec = shop("shop");
    spec.vms[0].interfaces = vec![interface("eth1", "02:00:00:00:00:01", "192.168.7.77")];
    spec.links[0].subnet = "192.168.7.0/24".into();
    spec.links[0].vlan = 333;
    spec.links[0].mtu = 9000;
    spec.links[0].dhcp_off = true;
    spec.vms.push(vm("auto", "", 0));
    world.apply(vec![spec], true).unwrap();
    let again = view::spec(world.slice("shop"));
    assert!(world.apply(vec![again], true).unwrap().is_noop());
}

#[test]
fn what_stays_keeps_its_id_vlan_and_addresses() {
    let mut world = World::new();
    let vms = |names: &[&str]| names.iter().map(|n| online(n, "w1", 2)).collect::<Vec<_>>();
    let first = slice(
        "lab",
        vms(&["a", "b", "c"]),
        vec![link(&["a.eth1", "b.eth1"]), link(&["b.eth2", "c.eth2"])],
    );
    world.apply(vec![first], true).unwrap();
    let (c, l) = (
        world.vm("lab", "c").clone(),
        world.link("lab", "b-eth2--c-eth2").clone(),
    );
    let second = slice("lab", vms(&["b", "c", "d"]), vec![link(&["c.eth2", "b.eth2"])]);
    let step = world.apply(vec![second], false).unwrap();
    assert_eq!(*world.vm("lab", "c"), c);
    assert_eq!(
        world.link("lab", "b-eth2--c-eth2").vlan,
        l.vlan,
        "ends in another order are the same link"
    );
    assert_eq!(world.vm("lab", "d").id.get(), 1003, "an id is never used again");
    let removed: Vec<_> = step.changes.iter().filter(|c| c.action == Action::Removed).collect();
    assert_eq!(removed.len(), 2, "{:?}", step.changes);
}

#[test]
fn a_renamed_vm_is_a_new_one() {
    let mut world = World::new();
    world
        .apply(vec![slice("lab", vec![vm("a", "w1", 1)], vec![])], true)
        .unwrap();
    world
        .apply(vec![slice("lab", vec![vm("b", "w1", 1)], vec![])], true)
        .unwrap();
    assert_eq!(world.vm("lab", "b").id.get(), 1001);
}

#[test]
fn a_given_vlan_belongs_to_its_slice() {
    let mut world = World::new();
    let mut a = shop("a");
    a.links[0].vlan = 2000;
    world.apply(vec![a], false).unwrap();
    let mut b = shop("b");
    b.links[0].vlan = 2000;
    assert_eq!(world.violations(vec![b.clone()])[0].field, "slices[0].links[0].vlan");
    b.links[0].vlan = 105;
    let told = world.violations(vec![b]);
    assert!(told[0].description.contains("pool 100 to 119 of slice a"), "{told:?}");
}

#[test]
fn a_new_pool_keeps_clear_of_vlans_that_the_same_request_gives() {
    let mut world = World::new();
    let mut b = shop("b");
    b.links[0].vlan = 105;
    world.apply(vec![shop("a"), b], true).unwrap();
    assert!(!world.slice("a").pool.contains(vlan(105)));
    assert_eq!(world.link("b", "web-eth1--db-eth1").vlan, vlan(105));
}

#[test]
fn a_pool_grows_without_moving_anything_and_never_holds_400() {
    let mut world = World::new();
    world.settings.vlan_first = vlan(390);
    world.settings.management_vlan = Some(vlan(402));
    world.settings.reserved_vlans = [vlan(404)].into();
    let mut spec = shop("a");
    spec.vlan_pool_size = 5;
    world.apply(vec![spec.clone(), shop("b")], true).unwrap();
    let before = world.link("a", "web-eth1--db-eth1").clone();
    spec.vlan_pool_size = 30;
    world.apply(vec![spec], true).unwrap();
    assert_eq!(*world.link("a", "web-eth1--db-eth1"), before);
    let (a, b) = (&world.slice("a").pool, &world.slice("b").pool);
    assert_eq!((a.size(), b.size()), (30, 20));
    assert_eq!(a.ranges.len(), 2);
    for taken in [400, 402, 404] {
        assert!(!a.contains(vlan(taken)) && !b.contains(vlan(taken)));
    }
    assert!(a.vlans().all(|v| !b.contains(v)));
    // 0 leaves it as it is; a smaller number is refused.
    assert!(world.apply(vec![shop("a")], true).unwrap().is_noop());
    let mut small = shop("a");
    small.vlan_pool_size = 10;
    assert_eq!(world.violations(vec![small])[0].field, "slices[0].vlan_pool_size");
}

#[test]
fn two_links_256_vlans_apart_share_no_subnet() {
    let mut world = World::new();
    let mut spec = slice(
        "lab",
        vec![vm("a", "w1", 2), vm("b", "w2", 2)],
        vec![link(&["a.eth1", "b.eth1"]), link(&["a.eth2", "b.eth2"])],
    );
    spec.links[0].vlan = 110;
    spec.links[1].vlan = 366;
    world.apply(vec![spec], true).unwrap();
    let subnets: Vec<LinkSubnet> = world.slice("lab").links.values().map(|l| l.subnet).collect();
    assert!(!subnets[0].overlaps(subnets[1].net()), "{subnets:?}");
}

#[test]
fn a_vlan_whose_derived_subnet_is_given_away_is_passed_over() {
    let mut world = World::new();
    let mut spec = shop("a");
    spec.links[0].vlan = 2000;
    spec.links[0].subnet = "10.64.100.128/25".into();
    world.apply(vec![spec], true).unwrap();
    world.settings.vlan_first = vlan(100);
    let mut spec = shop("b");
    spec.links[0].vlan = 0;
    world.apply(vec![spec], true).unwrap();
    // Slice a's pool is 100 to 119; its own next link passes over 100.
    let mut spec = view::spec(world.slice("a"));
    spec.vms[0].data_interfaces_count = 2;
    spec.vms[1].data_interfaces_count = 2;
    spec.links.push(link(&["web.eth2", "db.eth2"]));
    world.apply(vec![spec], true).unwrap();
    assert_eq!(world.link("a", "web-eth2--db-eth2").vlan, vlan(101));
}

#[test]
fn a_deployed_vlan_is_not_given_to_another_link_unless_it_is_asked_for() {
    let mut world = World::new();
    world.apply(vec![shop("shop")], true).unwrap();
    let mut spec = shop("shop");
    spec.links[0].name = "other".into();
    world.apply(vec![spec.clone()], false).unwrap();
    assert_eq!(world.link("shop", "other").vlan, vlan(101), "100 is still deployed");
    spec.links[0].name = "third".into();
    spec.links[0].vlan = 100;
    world.apply(vec![spec], true).unwrap();
    assert_eq!(world.link("shop", "third").vlan, vlan(100));
}

#[test]
fn vms_go_to_the_worker_with_the_fewest_and_stay_there() {
    let mut world = World::new();
    let names = ["a", "b", "c", "d"];
    let spec = || slice("lab", names.iter().map(|n| vm(n, "", 0)).collect(), vec![]);
    world.apply(vec![spec()], false).unwrap();
    for worker in ["w1", "w2"] {
        assert_eq!(world.state.cluster.vms_on(&name(worker)), 2);
    }
    world.join("w3", NodeRole::Worker);
    assert!(world.apply(vec![spec()], false).unwrap().is_noop());
    world.connected = [name("w2")].into();
    world
        .apply(vec![slice("two", vec![vm("x", "", 0)], vec![])], false)
        .unwrap();
    assert_eq!(
        world.vm("two", "x").worker,
        name("w2"),
        "a connected worker is preferred"
    );
}

#[test]
fn a_moved_vm_keeps_its_id() {
    let mut world = World::new();
    world.apply(vec![shop("shop")], true).unwrap();
    let mut spec = shop("shop");
    spec.vms[0].worker = "w2".into();
    let step = world.apply(vec![spec], true).unwrap();
    assert_eq!(world.vm("shop", "web").id.get(), 1000);
    assert!(
        step.changes.iter().any(|c| c.detail == "worker: w1 -> w2"),
        "{:?}",
        step.changes
    );
    assert!(step.touched.contains(&name("w1")) && step.touched.contains(&name("w2")));
}

#[test]
fn a_vm_in_a_link_is_removed_after_the_link_or_by_apply() {
    let mut world = World::new();
    world.apply(vec![shop("shop")], true).unwrap();
    let remove = |vm: &str| Intent::RemoveVm {
        slice: "shop".into(),
        name: vm.into(),
        expected: 0,
    };
    match world.try_do(remove("web")) {
        Err(Rejection::Precondition { description, .. }) => assert!(description.contains("web-eth1--db-eth1")),
        other => panic!("{other:?}"),
    }
    world.must(Intent::RemoveLink {
        slice: "shop".into(),
        name: "web-eth1--db-eth1".into(),
        expected: 0,
    });
    let step = world.must(remove("web"));
    assert!(step.touched.is_empty(), "the draft touches no host");
    assert_eq!(world.slice("shop").vms.len(), 1);
}

#[test]
fn single_edits_do_what_a_file_would() {
    let mut world = World::new();
    world
        .apply(vec![slice("lab", vec![vm("a", "w1", 1)], vec![])], false)
        .unwrap();
    let step = world.must(Intent::AddVm {
        slice: "lab".into(),
        vm: Some(vm("b", "w2", 1)),
        expected: 0,
    });
    assert_eq!(step.outcome.vm, Some(name("b")));
    let step = world.must(Intent::AddLink {
        slice: "lab".into(),
        link: Some(link(&["a.eth1", "b.eth1"])),
        expected: 0,
    });
    assert_eq!(step.outcome.link, Some(name("a-eth1--b-eth1")));
    let again = Intent::AddVm {
        slice: "lab".into(),
        vm: Some(vm("b", "w2", 1)),
        expected: 0,
    };
    assert!(matches!(world.try_do(again), Err(Rejection::AlreadyExists { .. })));
}

#[test]
fn removing_vm1_does_not_touch_vm10() {
    let mut world = World::new();
    let vms = ["vm1", "vm10", "vm11", "vm2"].map(|n| online(n, "w1", 1)).to_vec();
    world
        .apply(
            vec![slice("lab", vms.clone(), vec![link(&["vm10.eth1", "vm2.eth1"])])],
            true,
        )
        .unwrap();
    let before = world.state.node_desired(&name("w1"));
    let rest = vms.into_iter().filter(|v| v.name != "vm1").collect();
    world
        .apply(vec![slice("lab", rest, vec![link(&["vm10.eth1", "vm2.eth1"])])], true)
        .unwrap();
    let after = world.state.node_desired(&name("w1"));
    let gone: Vec<String> = before
        .resources
        .keys()
        .filter(|k| !after.resources.contains_key(k))
        .map(|k| k.name.to_string())
        .collect();
    assert_eq!(gone, ["tap_1000_eth0", "tap_1000_eth1"]);
    assert!(after.resources.iter().all(|(k, e)| before.resources[k] == *e));
}

#[test]
fn an_old_revision_of_the_slice_is_not_written_over() {
    let mut world = World::new();
    world.apply(vec![shop("shop")], false).unwrap();
    let seen = world.slice("shop").revision;
    world.apply(vec![shop("other")], false).unwrap();
    let expecting = |n| Intent::Apply {
        slices: vec![slice("shop", vec![], vec![])],
        expected: BTreeMap::from([("shop".into(), n)]),
        deploy: false,
    };
    assert!(matches!(
        world.try_do(expecting(seen + 1)),
        Err(Rejection::Aborted { actual, .. }) if actual == seen
    ));
    world.must(expecting(seen));
    assert!(matches!(world.try_do(expecting(seen)), Err(Rejection::Aborted { .. })));
}
