//! What holds for any plan.

use super::any::{any_state, any_world};
use super::*;

fn is_ours(port: &ObservedPort) -> bool {
    port.is_ours(&Mark::new(MARK))
}

proptest! {
    #[test]
    fn after_a_plan_was_carried_out_the_next_one_is_empty(state in any_state(), mut world in any_world()) {
        if let Ok(first) = plan(&state, &world) {
            apply(&first, "br-int", &mut world);
            let next = plan(&state, &world).unwrap();
            prop_assert!(next.is_empty(), "{next:#?}");
            prop_assert_eq!(next.conflicts, first.conflicts);
        }
    }

    #[test]
    fn nothing_without_our_mark_is_touched_but_an_adopted_uplink(state in any_state(), world in any_world()) {
        let mut after = world.clone();
        match plan(&state, &world) {
            Ok(plan) => apply(&plan, "br-int", &mut after),
            Err(_) => return Ok(()),
        }
        for (name, port) in world.ports.iter().filter(|(_, port)| !is_ours(port)) {
            let adopted = state.bridge.adopt && state.uplink.as_ref().is_some_and(|uplink| uplink.name == *name);
            if !adopted {
                prop_assert_eq!(after.ports.get(name), Some(port));
            }
        }
        prop_assert_eq!(&after.bridges["br-x"], &world.bridges["br-x"]);
    }

    #[test]
    fn what_others_wrote_on_a_port_of_ours_stays(state in any_state(), world in any_world()) {
        let notes = |port: &ObservedPort| {
            let foreign = |(key, _): &(&String, &String)| !key.starts_with("trunkline");
            port.columns.external_ids.iter().filter(foreign).map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>()
        };
        let mut after = world.clone();
        match plan(&state, &world) {
            Ok(plan) => apply(&plan, "br-int", &mut after),
            Err(_) => return Ok(()),
        }
        for (name, port) in &world.ports {
            if let Some(kept) = after.ports.get(name).filter(|kept| kept.id == port.id) {
                prop_assert_eq!(notes(kept), notes(port));
            }
        }
    }

    #[test]
    fn every_wanted_port_is_there_as_wanted_or_a_conflict(state in any_state(), mut world in any_world()) {
        if let Ok(plan) = plan(&state, &world) {
            apply(&plan, "br-int", &mut world);
            for (name, wanted) in state.wanted() {
                if plan.conflicts.contains_key(name) {
                    continue;
                }
                let held = &world.ports[name];
                prop_assert_eq!(&held.bridge.as_ref().unwrap().1, "br-int");
                prop_assert_eq!(
                    (&held.columns.vlan_mode, held.columns.tag, &held.columns.trunks, held.columns.protected),
                    (&Some(wanted.mode.to_owned()), wanted.tag, &wanted.trunks, wanted.protected)
                );
                let uplink = state.uplink.as_ref().is_some_and(|uplink| uplink.name == name);
                prop_assert!(uplink || held.interfaces.len() == 1, "{} is a bond", name);
                // A port with neither would carry every VLAN.
                prop_assert!(held.columns.tag.is_some() || !held.columns.trunks.is_empty());
            }
            let wanted: BTreeSet<&str> = state.wanted().map(|(name, _)| name).collect();
            for (name, port) in &world.ports {
                prop_assert!(!is_ours(port) || wanted.contains(name.as_str()) || world.bridges.contains_key(name), "{} is left", name);
            }
        }
    }

    #[test]
    fn a_row_is_as_wanted_when_writing_it_would_change_nothing(state in any_state(), mut world in any_world(), which in any::<bool>()) {
        if let (true, Ok(plan)) = (which, plan(&state, &world)) {
            apply(&plan, "br-int", &mut world);
        }
        for (name, wanted) in state.wanted() {
            let Some(port) = world.ports.get(name) else { continue };
            let mut written = wanted.to_columns().onto(&port.columns);
            written.external_ids.extend(port.columns.external_ids.get_key_value(DEVICE_KEY).map(|(key, value)| (key.clone(), value.clone())));
            written.interface.ofport_request = port.columns.interface.ofport_request;
            if wanted.is_uplink {
                let held = &port.columns.interface;
                written.interface = InterfaceColumns {
                    external_ids: written.interface.external_ids,
                    ..held.clone()
                };
            }
            prop_assert_eq!(wanted.is_in(&port.columns), written == port.columns);
        }
    }

    #[test]
    fn a_new_port_asks_for_a_number_that_no_port_has_or_had_a_moment_ago(state in any_state(), world in any_world()) {
        if let Ok(plan) = plan(&state, &world) {
            let mut taken: BTreeSet<i64> = world
                .ports
                .values()
                .flat_map(|port| port.interfaces.iter().filter_map(|interface| interface.ofport))
                .collect();
            for addition in &plan.add {
                let asked = addition.columns.interface.ofport_request.unwrap();
                prop_assert!((1..=65_279).contains(&asked) && taken.insert(asked), "{} asks for {}", addition.name, asked);
            }
            for change in plan.modify.iter().filter(|change| change.interfaces.len() == 1) {
                prop_assert_eq!(change.after.interface.ofport_request, world.ports[&change.name].ofport());
            }
        }
    }

    #[test]
    fn a_bridge_for_guests_is_secure_whoever_made_it(state in any_state(), mut world in any_world()) {
        if let Ok(plan) = plan(&state, &world) {
            apply(&plan, "br-int", &mut world);
            prop_assert_eq!(&world.bridges["br-int"].fail_mode, "secure");
        }
    }

    #[test]
    fn a_bridge_without_our_mark_is_refused_exactly_when_it_is_not_adopted(state in any_state(), world in any_world()) {
        let strange = world.bridges.get("br-int").is_some_and(|bridge| !state.mark.is_on(&bridge.external_ids));
        prop_assert_eq!(plan(&state, &world).is_err(), strange && !state.bridge.adopt);
    }
}
