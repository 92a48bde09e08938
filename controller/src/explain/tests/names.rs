//! What may be named, what is joined, and the answer where it is not.

use super::*;

fn unnamed(fleet: &Fleet, from: &str, to: &str) -> Unnamed {
    explain(&fleet.world.state, &fleet.views, from, to).unwrap_err()
}

/// What stops it before any host is looked at, and what mends that.
fn apart(fleet: &Fleet, from: &str, to: &str) -> (String, String) {
    let explained = fleet.explain(from, to);
    assert_eq!(explained.first_broken, 0, "{explained:#?}");
    assert!(
        explained.verdict.contains(&explained.hops[0].seen),
        "{}",
        explained.verdict
    );
    (explained.hops[0].seen.clone(), explained.hops[0].mend.clone())
}

#[test]
fn a_wrong_name_is_answered_with_what_there_is() {
    let lab = slice("lab", vec![vm("web", "w1", 1)], vec![]);
    let fleet = Fleet::of(vec![shop(), lab]);
    let long = "a".repeat(101);
    for (from, to, missing, description) in [
        (
            "wbe.eth1",
            "db.eth1",
            Some("vm"),
            "there is no vm wbe; the vms are lab/web, shop/db, shop/web",
        ),
        (
            "shop/wbe.eth1",
            "db.eth1",
            Some("vm"),
            "there is no vm wbe; the vms are db, web",
        ),
        (
            "shp/web.eth1",
            "db.eth1",
            Some("slice"),
            "there is no slice shp; the slices are lab, shop",
        ),
        (
            "shop/web.eth3",
            "db.eth1",
            Some("interface"),
            "there is no interface web.eth3; its interfaces are web.eth0, web.eth1, web.eth2",
        ),
        (
            "web.eth1",
            "db.eth1",
            None,
            "web is in several slices; write one of lab/web.eth1, shop/web.eth1",
        ),
        (
            "db",
            "shop/web.eth1",
            None,
            "db is a vm: its interfaces are db.eth0, db.eth1, db.eth2",
        ),
        (
            "db eth1",
            "shop/web.eth1",
            None,
            "\"db eth1\" is no interface: write vm.interface, like web.eth1",
        ),
        (
            &long,
            "internet",
            None,
            "that is no interface: write at most 100 characters",
        ),
        (
            "internet",
            "shop/web.eth1",
            None,
            "the internet is where a way ends, not where it begins; name an interface first",
        ),
    ] {
        let unnamed = unnamed(&fleet, from, to);
        assert_eq!(
            (
                unnamed.missing.as_ref().map(|(kind, _)| *kind),
                unnamed.description.as_str()
            ),
            (missing, description)
        );
        assert_eq!(unnamed.field, "from");
    }
    assert_eq!(unnamed(&fleet, "db.eth1", "wbe.eth1").field, "to");
    let same = unnamed(&fleet, "db.eth1", "shop/db.eth1");
    assert_eq!(
        same.description,
        "shop/db.eth1 is both ends of the way; name two interfaces, or one and `internet`"
    );
}

#[test]
fn a_list_of_names_ends_somewhere() {
    let vms = (0..25).map(|number| vm(&format!("a{number:02}"), "w1", 0)).collect();
    let fleet = Fleet::of(vec![slice("big", vms, vec![])]);
    let description = unnamed(&fleet, "b.eth0", "a00.eth0").description;
    assert!(description.ends_with("big/a19 and 5 more"), "{description}");
}

#[test]
fn two_interfaces_that_no_link_joins_are_told_where_each_is() {
    let spec = slice(
        "shop",
        vec![online("web", "w1", 2), vm("db", "w2", 3)],
        vec![link(&["web.eth1", "db.eth1"]), link(&["web.eth2", "db.eth2"])],
    );
    let fleet = Fleet::of(vec![spec]);
    assert_eq!(
        apart(&fleet, "web.eth1", "db.eth2"),
        (
            "web.eth1 is on vlan 100, db.eth2 on vlan 101: no link joins them".to_owned(),
            "use web.eth1 and db.eth1, which the link web-eth1--db-eth1 joins".to_owned()
        )
    );
    assert_eq!(
        apart(&fleet, "web.eth1", "db.eth3").0,
        "web.eth1 is on vlan 100, db.eth3 in no link: no link joins them"
    );
    assert_eq!(
        apart(&fleet, "web.eth0", "db.eth1").0,
        "web.eth0 is for the internet only, db.eth1 on vlan 100: no link joins them"
    );
    let explained = fleet.explain("web.eth1", "db.eth2");
    let last = explained.hops.last().unwrap();
    assert_eq!(
        last.kind(),
        wire::hop::Kind::Guest,
        "both ends are shown: {explained:#?}"
    );
    assert!(!steps(&explained).iter().any(|step| step.starts_with("probe")));
}

#[test]
fn where_interfaces_are_free_the_command_that_joins_them_is_told() {
    let spec = slice(
        "shop",
        vec![
            vm("web", "w1", 2),
            vm("db", "w2", 1),
            vm("log", "w2", 1),
            vm("old", "w2", 0),
        ],
        vec![link(&["web.eth1", "db.eth1"])],
    );
    let fleet = Fleet::of(vec![spec]);
    assert_eq!(
        apart(&fleet, "web.eth1", "log.eth1").1,
        "`trunkctl link add shop/web.eth2 log.eth1`, then `trunkctl slice deploy shop`"
    );
    let mend = apart(&fleet, "web.eth1", "old.eth0").1;
    assert!(
        mend.starts_with("give both VMs a data interface that is in no link"),
        "{mend}"
    );
}

#[test]
fn what_is_in_the_draft_only_is_to_be_deployed() {
    let mut fleet = Fleet::new();
    let mut more = shop();
    more.links.push(link(&["web.eth2", "db.eth2"]));
    more.vms[1].internet_enabled = true;
    fleet.world.apply(vec![more], false).unwrap();
    let deploy = "`trunkctl slice deploy shop`".to_owned();
    assert_eq!(
        apart(&fleet, "web.eth2", "db.eth2"),
        (
            "link web-eth2--db-eth2 is in the draft of shop and not deployed".to_owned(),
            deploy.clone()
        )
    );
    assert_eq!(
        apart(&fleet, "db.eth0", "internet"),
        (
            "the internet of db is in the draft of shop and not deployed".to_owned(),
            deploy
        )
    );
}

#[test]
fn different_slices_share_nothing() {
    let fleet = Fleet::of(vec![shop(), slice("lab", vec![vm("probe", "w1", 1)], vec![])]);
    let explained = fleet.explain("web.eth1", "probe.eth1");
    assert_eq!(
        explained.verdict,
        "shop/web.eth1 does not reach lab/probe.eth1: shop/web.eth1 and lab/probe.eth1 are in different slices, which share \
         nothing by design"
    );
}

#[test]
fn guests_of_a_protected_link_do_not_reach_each_other_by_design() {
    let mut spec = slice(
        "shop",
        vec![vm("web", "w1", 2), vm("db", "w2", 2), vm("log", "w2", 1)],
        vec![link(&["web.eth1", "db.eth1", "log.eth1"])],
    );
    spec.links[0].protected = true;
    let fleet = Fleet::of(vec![spec]);
    let (seen, mend) = apart(&fleet, "web.eth1", "db.eth1");
    assert!(
        seen.contains("is protected: its guests reach the gateway and the DHCP server, and not each other"),
        "{seen}"
    );
    assert_eq!(
        mend,
        "where they are to meet, `trunkctl link add shop/web.eth2 db.eth2`, then `trunkctl slice deploy shop`"
    );
}

#[test]
fn only_eth0_of_a_vm_with_internet_leads_there() {
    let fleet = Fleet::new();
    assert_eq!(
        apart(&fleet, "web.eth1", "internet"),
        (
            "web.eth1 is a data interface; only eth0 leads to the internet".to_owned(),
            "use web.eth0".to_owned()
        )
    );
    let (seen, mend) = apart(&fleet, "db.eth0", "internet");
    assert_eq!(seen, "db has no internet");
    assert!(mend.contains("`internet_enabled: true` for db"), "{mend}");
}
