#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use trunkline_proto::wire;

use super::*;
use crate::testing::{interface, link, slice, vm};

#[test]
fn a_sound_slice_has_no_mistakes() {
    let mut mistakes = Mistakes::default();
    let mut spec = slice(
        "lab",
        vec![vm("a", "", 16), vm("b", "w1", 1)],
        vec![link(&["a.eth16", "b.eth1"])],
    );
    spec.vms[0].interfaces = vec![interface("eth16", "02:00:00:00:00:01", "10.0.0.1")];
    let slices = parse(&[spec], &mut mistakes);
    assert_eq!(mistakes.len(), 0);
    assert_eq!(slices[0].links[0].ends.len(), 2);
    assert!(slices[0].vms[0].worker.is_none());
}

#[test]
fn a_wrong_count_is_one_mistake_not_one_for_each_interface() {
    let mut mistakes = Mistakes::default();
    let spec = slice(
        "lab",
        vec![vm("a", "w1", 99), vm("b", "w1", 1)],
        vec![link(&["a.eth7", "b.eth1"])],
    );
    parse(&[spec], &mut mistakes);
    assert_eq!(mistakes.len(), 1);
}

#[test]
fn all_that_is_wrong_with_a_link_is_told_at_once() {
    let mut mistakes = Mistakes::default();
    let mut spec = slice(
        "lab",
        vec![vm("a", "w1", 1), vm("b", "w1", 1)],
        vec![link(&["a.eth1", "b.eth1"]), link(&["a.eth9", "b.eth1"])],
    );
    spec.links[1].vlan = 400;
    parse(&[spec], &mut mistakes);
    assert_eq!(
        mistakes.len(),
        3,
        "an end that is not there, one that is taken, and the VLAN"
    );
}

proptest! {
    #[test]
    fn nothing_that_is_sent_makes_it_fall_over(
        texts in prop::collection::vec(any::<String>(), 6),
        numbers in prop::collection::vec(any::<u32>(), 4),
    ) {
        let mut spec = slice(&texts[0], vec![vm(&texts[1], &texts[2], numbers[0])], vec![link(&[&texts[3], "a.eth1"])]);
        spec.vms[0].interfaces = vec![interface(&texts[4], &texts[5], &texts[2])];
        spec.links[0].vlan = numbers[1];
        spec.links[0].mtu = numbers[2];
        spec.vlan_pool_size = numbers[3];
        let mut mistakes = Mistakes::default();
        parse(&[spec, wire::SliceSpec::default()], &mut mistakes);
        prop_assert!(mistakes.len() > 0);
    }
}
