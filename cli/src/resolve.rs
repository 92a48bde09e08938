//! Names as operators write them: `slice/vm`, or the bare name when only one slice has it.

use trunkline_proto::{Endpoint, Invalid, wire};

use crate::failure::Failure;

/// `shop/web` into the slice, if one is given here or by `--slice`, and the name.
pub(crate) fn split<'a>(name: &'a str, within: Option<&'a str>) -> Result<(Option<&'a str>, &'a str), Failure> {
    let Some((slice, name)) = name.split_once('/') else {
        return Ok((within, name));
    };
    match within {
        Some(other) if other != slice => Err(Failure::Usage {
            what: format!("{slice}/{name} is not in the slice {other}"),
            instead: "leave --slice out, or the part before the /".to_owned(),
        }),
        _ => Ok((Some(slice), name)),
    }
}

/// The slice that something new goes to: it has to be said.
pub(crate) fn slice_for_new<'a>(
    kind: &str,
    name: &'a str,
    within: Option<&'a str>,
) -> Result<(&'a str, &'a str), Failure> {
    let (slice, name) = split(name, within)?;
    let slice = slice.ok_or_else(|| Failure::Usage {
        what: format!("which slice is the {kind} {name} for?"),
        instead: format!("write SLICE/{name}, or --slice SLICE"),
    })?;
    Ok((slice, name))
}

/// The one thing of this name in these slices.
pub(crate) fn only<'a, T>(
    kind: &'static str,
    name: &str,
    slices: &'a [wire::Slice],
    things: impl Fn(&'a wire::Slice) -> &'a [T],
    name_of: impl Fn(&T) -> &str,
) -> Result<(&'a wire::Slice, &'a T), Failure> {
    let all = slices
        .iter()
        .flat_map(|slice| things(slice).iter().map(move |thing| (slice, thing)));
    let found: Vec<_> = all.filter(|(_, thing)| name_of(thing) == name).collect();
    match found[..] {
        [one] => Ok(one),
        [] => Err(Failure::NotFound {
            kind,
            name: name.to_owned(),
            instead: format!("see `trunkctl {} list`", kind.to_lowercase()),
        }),
        [(first, _), ..] => {
            let in_slices: Vec<&str> = found.iter().map(|(slice, _)| slice.name.as_str()).collect();
            Err(Failure::Usage {
                what: format!("{name} is in several slices: {}", in_slices.join(", ")),
                instead: format!("write {}/{name}, or --slice {}", first.name, first.name),
            })
        }
    }
}

/// The VM of this name.
pub(crate) fn vm<'a>(slices: &'a [wire::Slice], name: &str) -> Result<(&'a wire::Slice, &'a wire::Vm), Failure> {
    only("VM", name, slices, |slice| &slice.vms, |vm| &vm.name)
}

/// The link of this name.
pub(crate) fn link<'a>(slices: &'a [wire::Slice], name: &str) -> Result<(&'a wire::Slice, &'a wire::Link), Failure> {
    only("link", name, slices, |slice| &slice.links, |link| &link.name)
}

/// Ends of a new link, `slice/vm.interface` or `vm.interface`: the slice if any of them or `--slice` says it, and the ends.
pub(crate) fn ends<'a>(
    ends: &'a [String],
    within: Option<&'a str>,
) -> Result<(Option<&'a str>, Vec<Endpoint>), Failure> {
    let mut slice = within;
    let mut parsed = Vec::new();
    for end in ends {
        let (of, end) = split(end, slice)?;
        slice = of;
        let endpoint = end.parse().map_err(|e: Invalid| Failure::Usage {
            what: format!("\"{end}\" is not an end of a link"),
            instead: e.instead().to_owned(),
        })?;
        parsed.push(endpoint);
    }
    Ok((slice, parsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(name: &str, vms: &[&str]) -> wire::Slice {
        let vm = |vm: &&str| wire::Vm {
            name: (*vm).to_owned(),
            ..wire::Vm::default()
        };
        wire::Slice {
            name: name.to_owned(),
            vms: vms.iter().map(vm).collect(),
            ..wire::Slice::default()
        }
    }

    #[test]
    fn a_bare_name_is_enough_when_one_slice_has_it() {
        let slices = [slice("shop", &["web", "db"]), slice("lab", &["web"])];
        assert_eq!(vm(&slices, "db").unwrap().0.name, "shop");
        let ambiguous = vm(&slices, "web").unwrap_err();
        assert_eq!(
            (ambiguous.exit_code(), ambiguous.to_string().as_str()),
            (2, "web is in several slices: shop, lab")
        );
        assert_eq!(vm(&slices, "mail").unwrap_err().exit_code(), 3);
    }

    #[test]
    fn the_slice_is_said_once_or_alike() {
        assert_eq!(split("shop/web", None).unwrap(), (Some("shop"), "web"));
        assert_eq!(split("web", Some("shop")).unwrap(), (Some("shop"), "web"));
        assert_eq!(split("shop/web", Some("shop")).unwrap(), (Some("shop"), "web"));
        assert!(split("shop/web", Some("lab")).is_err());
        assert!(slice_for_new("VM", "web", None).is_err());
    }

    #[test]
    fn the_ends_of_a_link_are_in_one_slice() {
        let text = |ends: &[&str]| ends.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>();
        let given = text(&["shop/web.eth1", "db.eth1"]);
        let (slice, parsed) = ends(&given, None).unwrap();
        assert_eq!((slice, parsed.len()), (Some("shop"), 2));
        assert!(ends(&text(&["shop/web.eth1", "lab/db.eth1"]), None).is_err());
        assert!(ends(&text(&["web", "db.eth1"]), None).is_err());
    }
}
