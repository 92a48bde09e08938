use super::*;

fn taps(names: &[&str]) -> BTreeSet<Thing> {
    names.iter().map(|name| Thing::new("tap", *name)).collect()
}

fn many(numbers: std::ops::Range<u32>) -> BTreeSet<Thing> {
    numbers.map(|n| Thing::new("tap", format!("tap_{n}_eth1"))).collect()
}

/// A host that has everything that it is to have.
fn look(wanted: BTreeSet<Thing>, unwanted: BTreeSet<Thing>) -> Look<'static> {
    Look {
        there: wanted.len(),
        wanted,
        unwanted,
        ..Look::default()
    }
}

/// How many of the list are held, and how many it has.
fn listed(orphans: &mut Orphans, there: &BTreeSet<Thing>) -> (usize, usize) {
    let list = orphans.list(there);
    (list.iter().filter(|orphan| orphan.held).count(), list.len())
}

#[tokio::test]
async fn what_an_update_takes_away_goes_at_once() {
    let (mut orphans, now) = (Orphans::default(), Instant::now());
    assert!(orphans.look(look(taps(&["a", "b"]), taps(&[])), now).is_empty());
    assert!(orphans.look(look(taps(&["a"]), taps(&["b"])), now).is_empty());
    assert!(orphans.list(&taps(&["b"])).is_empty());
    assert!(
        orphans.look(look(taps(&[]), taps(&["a", "b"])), now).is_empty(),
        "b could not go yet, a leaves now"
    );
}

#[tokio::test]
async fn a_leftover_goes_at_a_second_look_and_not_before_the_time() {
    let (mut orphans, now) = (Orphans::default(), Instant::now());
    let old = taps(&["old"]);
    let see = |orphans: &mut Orphans, at| orphans.look(look(taps(&["a"]), taps(&["old"])), at);
    assert_eq!(see(&mut orphans, now), old);
    assert_eq!(orphans.next(now), Some(SECOND_LOOK));
    let sooner = now + SECOND_LOOK - Duration::from_millis(1);
    assert_eq!(see(&mut orphans, sooner), old);
    assert_eq!(orphans.list(&old).len(), 1);
    assert!(see(&mut orphans, now + SECOND_LOOK).is_empty());
    assert_eq!(orphans.list(&old).len(), 1, "told of until it is gone");
    assert_eq!(
        orphans.next(now + SECOND_LOOK),
        None,
        "one that stays is no reason to look without end"
    );
    assert!(orphans.list(&taps(&[])).is_empty());
    assert_eq!(orphans.next(now), None);
}

#[tokio::test]
async fn one_look_is_never_two_whatever_the_time_is_set_to() {
    let (mut orphans, now) = (Orphans::new(Duration::ZERO), Instant::now());
    let mut see = |at| orphans.look(look(taps(&[]), taps(&["old"])), at);
    assert_eq!(see(now).len(), 1);
    assert!(see(now + Duration::from_nanos(1)).is_empty());
}

#[tokio::test]
async fn what_is_wanted_meanwhile_is_no_leftover_any_more() {
    let (mut orphans, now) = (Orphans::default(), Instant::now());
    orphans.look(look(taps(&[]), taps(&["old"])), now);
    assert!(orphans.look(look(taps(&["old"]), taps(&[])), now).is_empty());
    assert!(orphans.list(&taps(&[])).is_empty());
    assert!(
        orphans.look(look(taps(&[]), taps(&["old"])), now).is_empty(),
        "it was wanted in this life"
    );
}

#[tokio::test]
async fn so_many_leftovers_that_they_are_likelier_a_mistake_stay_until_a_word() {
    let (mut orphans, now) = (Orphans::default(), Instant::now());
    let old = many(0..10);
    for after in [Duration::ZERO, SECOND_LOOK, 1000 * SECOND_LOOK] {
        assert_eq!(orphans.look(look(taps(&["a"]), old.clone()), now + after), old);
        assert_eq!(listed(&mut orphans, &old), (10, 10));
    }
    assert_eq!(orphans.next(now), None, "waiting longer changes nothing");
    // Some of them are taken away by hand: what is left was told of as held.
    let fewer = many(0..7);
    assert_eq!(orphans.look(look(taps(&["a"]), fewer.clone()), now), fewer);
    // A word for what was told of is one for just that.
    orphans.let_go(many(0..6));
    let left = orphans.look(look(taps(&["a"]), fewer.clone()), now);
    assert_eq!((left, listed(&mut orphans, &fewer)), (many(6..7), (1, 7)));
}

#[tokio::test]
async fn few_leftovers_and_a_small_share_go_as_ever() {
    for (wanted, old) in [(many(100..101), many(0..9)), (many(100..200), many(0..42))] {
        let (mut orphans, now) = (Orphans::default(), Instant::now());
        assert_eq!(orphans.look(look(wanted.clone(), old.clone()), now), old);
        assert!(
            orphans
                .look(look(wanted.clone(), old.clone()), now + SECOND_LOOK)
                .is_empty()
        );
    }
    // What is wanted and not there is no part of what is ours here.
    let (mut orphans, now) = (Orphans::default(), Instant::now());
    for at in [now, now + SECOND_LOOK] {
        let none_there = Look {
            there: 0,
            ..look(many(100..200), many(0..42))
        };
        assert_eq!(orphans.look(none_there, at).len(), 42);
    }
}

#[tokio::test]
async fn what_is_held_and_wanted_again_is_held_no_more() {
    let (mut orphans, now) = (Orphans::default(), Instant::now());
    orphans.look(look(taps(&[]), many(0..20)), now);
    let rest = orphans.look(look(many(0..18), many(18..20)), now + SECOND_LOOK);
    assert_eq!((rest, listed(&mut orphans, &many(18..20))), (many(18..20), (2, 2)));
    // And goes when an update takes it away then.
    let rest = orphans.look(look(taps(&[]), many(0..20)), now + SECOND_LOOK);
    assert_eq!(rest, many(18..20));
}

#[tokio::test]
async fn what_an_update_took_away_in_another_life_goes_at_once() {
    let (mut orphans, now) = (Orphans::default(), Instant::now());
    let leaving: BTreeSet<Key> = many(0..20).iter().filter_map(Thing::resource).collect();
    let look = Look {
        leaving: Some(&leaving),
        ..look(taps(&[]), many(0..21))
    };
    assert_eq!(orphans.look(look, now), many(20..21));
    assert_eq!(listed(&mut orphans, &many(0..21)), (0, 1));
}

#[tokio::test]
async fn what_is_in_the_way_goes_at_its_second_look_however_much_stays() {
    let (mut orphans, now) = (Orphans::default(), Instant::now());
    for (at, left) in [(now, many(0..20)), (now + SECOND_LOOK, many(1..20))] {
        let look = Look {
            in_the_way: many(0..1),
            ..look(taps(&[]), many(0..20))
        };
        assert_eq!(orphans.look(look, at), left);
        assert_eq!(listed(&mut orphans, &many(0..20)), (19, 20));
    }
}

#[test]
fn things_are_named_by_the_resource_that_they_are_a_part_of() {
    for (kind, name, resource) in [
        ("tap", "tap_1001_eth1", "port tap_1001_eth1"),
        ("switch port", "tap_1001_eth1", "port tap_1001_eth1"),
        ("switch port", "gw_vlan110", "gateway gw_vlan110"),
        ("gateway", "gw_vlan110", "gateway gw_vlan110"),
        ("switch port", "dhcp_v110", "dhcp dhcp_v110"),
        ("namespace", "ns-dhcp-vlan110", "dhcp dhcp_v110"),
        ("dnsmasq", "vlan110", "dhcp dhcp_v110"),
        ("switch port", "tlprobe0", "probe tlprobe0"),
    ] {
        assert_eq!(Thing::new(kind, name).resource().unwrap().to_string(), resource);
    }
}
