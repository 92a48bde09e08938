//! What the rows of a port are to hold, by reference: it is asked for each port in each look, and only a row that differs needs a copy.

use std::collections::{BTreeMap, BTreeSet};

use trunkline_proto::{Mac, VlanId};

use super::{
    Access, DEVICE_KEY, FailMode, InterfaceColumns, KEY_PREFIX, KIND_KEY, Labels, MARK_KEY, PortColumns, PortKind,
    SwitchPort, SwitchState, UPLINK, UplinkSpec,
};

/// The VLAN list of an uplink that shall carry nothing: an empty list would mean every VLAN, and 4095 is no VLAN.
pub(super) const NO_VLAN: i64 = 4095;

/// The columns of one port.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) mode: &'static str,
    pub(super) tag: Option<i64>,
    pub(super) trunks: BTreeSet<i64>,
    pub(super) protected: bool,
    /// In order; those without a value are not written.
    marks: [(&'static str, &'a str); 5],
    /// Its device is there already; its kind, MAC and MTU are the operator's.
    pub(super) is_uplink: bool,
    pub(super) kind: &'static str,
    mac: Option<Mac>,
    mtu: Option<i64>,
}

impl Wanted<'_> {
    /// A copy, as it is written.
    pub(super) fn to_columns(&self) -> PortColumns {
        let written = self.written();
        let external_ids: BTreeMap<_, _> = written.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        PortColumns {
            vlan_mode: Some(self.mode.to_owned()),
            tag: self.tag,
            trunks: self.trunks.clone(),
            protected: self.protected,
            external_ids: external_ids.clone(),
            interface: InterfaceColumns {
                kind: self.kind.to_owned(),
                mac: self.mac.map(|mac| mac.to_string()),
                mtu_request: self.mtu,
                ofport_request: None,
                external_ids,
            },
        }
    }

    /// True when rows hold just this: what others wrote into `external_ids` is theirs, and the number and the device that a port joined
    /// with are not asked for here.
    pub(super) fn is_in(&self, held: &PortColumns) -> bool {
        let PortColumns {
            vlan_mode,
            tag,
            trunks,
            protected,
            external_ids,
            interface,
        } = held;
        let InterfaceColumns {
            kind,
            mac,
            mtu_request,
            ofport_request: _,
            external_ids: of_interface,
        } = interface;
        let device = || {
            let same_mac = match (self.mac, mac) {
                (Some(wanted), Some(held)) => wanted.to_string() == *held,
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            self.kind == kind && self.mtu == *mtu_request && same_mac
        };
        vlan_mode.as_deref() == Some(self.mode)
            && self.tag == *tag
            && self.protected == *protected
            && self.trunks == *trunks
            && (self.is_uplink || device())
            && self.marks_are(external_ids, |key| key != DEVICE_KEY)
            && self.marks_are(of_interface, |_| true)
    }

    /// True when these are our marks among those of a row that count.
    fn marks_are(&self, held: &BTreeMap<String, String>, counts: impl Fn(&str) -> bool) -> bool {
        let ours = held
            .iter()
            .filter(|(key, _)| key.starts_with(KEY_PREFIX) && counts(key));
        ours.map(|(key, value)| (key.as_str(), value.as_str()))
            .eq(self.written())
    }

    fn written(&self) -> impl Iterator<Item = (&str, &str)> {
        self.marks.iter().copied().filter(|(_, value)| !value.is_empty())
    }
}

impl SwitchState {
    /// Every port that is wanted, uplink included, by name.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (&str, Wanted<'_>)> {
        let uplink = self.uplink.as_ref();
        let name = uplink.map(|uplink| uplink.name.as_str());
        // A port of the uplink's name does not hide it.
        let before = self
            .ports
            .iter()
            .take_while(move |(port, _)| name.is_none_or(|name| port.as_str() < name));
        let after = self
            .ports
            .range::<str, _>((
                name.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded),
                std::ops::Bound::Unbounded,
            ))
            .filter(move |_| name.is_some());
        let uplink = uplink.map(|uplink| (uplink.name.as_str(), self.uplink_port(uplink)));
        before
            .map(|(name, port)| self.named(name, port))
            .chain(uplink)
            .chain(after.map(|(name, port)| self.named(name, port)))
    }

    fn named<'a>(&'a self, name: &'a str, port: &'a SwitchPort) -> (&'a str, Wanted<'a>) {
        (name, self.access(port))
    }

    /// An access port.
    pub(super) fn access<'a>(&'a self, port: &'a SwitchPort) -> Wanted<'a> {
        let SwitchPort { kind, access, labels } = port;
        let Labels {
            kind: what,
            slice,
            vm,
            interface,
        } = labels;
        Wanted {
            marks: self.marks(what, [slice, vm, interface]),
            ..self.unmarked(kind, *access)
        }
    }

    /// An access port, but for whose it is.
    pub(super) fn unmarked(&self, kind: &PortKind, access: Access) -> Wanted<'_> {
        let (mode, tag, trunks, protected) = match access {
            Access::Vlan(vlan) => ("access", Some(i64::from(vlan.get())), BTreeSet::new(), false),
            Access::Isolated => ("access", Some(0), BTreeSet::new(), true),
            Access::Uplink => {
                // Where flows rule they lead frames past the list, and NORMAL is not to flood guests' frames to a device of the host.
                let uplink = self
                    .uplink
                    .as_ref()
                    .filter(|_| self.bridge.fail_mode == FailMode::Standalone);
                let carried = uplink.map_or_else(|| trunks(&BTreeSet::new()), |uplink| trunks(&uplink.vlans));
                ("trunk", None, carried, false)
            }
        };
        let (kind, mac, mtu) = match kind {
            PortKind::System => ("", None, None),
            PortKind::Internal { mac, mtu } => ("internal", Some(*mac), Some(i64::from(*mtu))),
        };
        Wanted {
            mode,
            tag,
            trunks,
            protected,
            marks: self.marks_of_kind(""),
            is_uplink: false,
            kind,
            mac,
            mtu,
        }
    }

    /// The uplink.
    pub(super) fn uplink_port(&self, uplink: &UplinkSpec) -> Wanted<'_> {
        Wanted {
            mode: "trunk",
            tag: None,
            trunks: trunks(&uplink.vlans),
            protected: false,
            marks: self.marks_of_kind(UPLINK),
            is_uplink: true,
            kind: "",
            mac: None,
            mtu: None,
        }
    }

    /// The bridge's own port, which every bridge has: it stays down, and is kept apart from all guests besides.
    pub(super) fn local_port(&self) -> Wanted<'_> {
        Wanted {
            mode: "access",
            tag: Some(0),
            trunks: BTreeSet::new(),
            protected: true,
            marks: self.marks_of_kind("local"),
            is_uplink: false,
            kind: "internal",
            mac: None,
            mtu: None,
        }
    }

    fn marks_of_kind<'a>(&'a self, kind: &'a str) -> [(&'static str, &'a str); 5] {
        self.marks(kind, ["", "", ""])
    }

    fn marks<'a>(&'a self, kind: &'a str, [slice, vm, interface]: [&'a str; 3]) -> [(&'static str, &'a str); 5] {
        [
            (MARK_KEY, &self.mark.0),
            ("trunkline-interface", interface),
            (KIND_KEY, kind),
            ("trunkline-slice", slice),
            ("trunkline-vm", vm),
        ]
    }
}

fn trunks(vlans: &BTreeSet<VlanId>) -> BTreeSet<i64> {
    if vlans.is_empty() {
        return BTreeSet::from([NO_VLAN]);
    }
    vlans.iter().map(|vlan| i64::from(vlan.get())).collect()
}
