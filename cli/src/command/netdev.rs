//! `vm netdev`: what a launcher needs to open a VM's TAPs. Pure.
//!
//! On the userspace datapath (`netdev`) nobody completes the checksums that a guest leaves to its NIC: ping works, and every TCP SYN
//! is dropped. So offloads are off there: `vnet_hdr=off` for qemu, the driver's options for libvirt, which has no such switch. The
//! kernel datapath (`system`) completes them, and they stay on.

use std::fmt::Write;

use serde::Serialize;
use trunkline_proto::wire;

use crate::args::Launcher;

/// What a frame carries unless somebody says otherwise, in bytes.
const USUAL_MTU: u32 = 1500;

/// `vm netdev`.
#[derive(Debug, Serialize)]
pub(crate) struct NetdevView {
    slice: String,
    vm: String,
    worker: Option<String>,
    /// `system` or `netdev`; nothing when the worker has not said yet.
    datapath: Option<String>,
    /// False for what is in the draft only: its TAPs are on no host yet.
    deployed: bool,
    interfaces: Vec<NetdevInterfaceView>,
}

#[derive(Debug, Serialize)]
struct NetdevInterfaceView {
    name: String,
    tap: String,
    mac: String,
    /// Arguments, ready for an argv.
    qemu: Vec<String>,
    /// An element of a domain's `<devices>`.
    libvirt: String,
}

impl NetdevView {
    pub(crate) fn new(slice: &wire::Slice, vm: &wire::Vm, deployed: bool, datapath: String) -> Self {
        // Without offloads it works on both.
        let offloads = datapath == "system";
        let interface = |i: &wire::Interface| NetdevInterfaceView {
            name: i.name.clone(),
            tap: i.tap.clone(),
            mac: i.mac.clone(),
            qemu: qemu(i, offloads),
            libvirt: libvirt(i, offloads),
        };
        Self {
            slice: slice.name.clone(),
            vm: vm.name.clone(),
            worker: Some(vm.worker.clone()).filter(|w| !w.is_empty()),
            datapath: Some(datapath).filter(|d| !d.is_empty()),
            deployed,
            interfaces: vm.interfaces.iter().map(interface).collect(),
        }
    }
}

/// The MTU, when a guest would not guess it.
fn unusual_mtu(interface: &wire::Interface) -> Option<u32> {
    Some(interface.mtu).filter(|mtu| *mtu != 0 && *mtu != USUAL_MTU)
}

fn qemu(interface: &wire::Interface, offloads: bool) -> Vec<String> {
    let wire::Interface { name, tap, mac, .. } = interface;
    let header = if offloads { "" } else { ",vnet_hdr=off" };
    let mtu = unusual_mtu(interface)
        .map(|mtu| format!(",host_mtu={mtu}"))
        .unwrap_or_default();
    vec![
        "-netdev".to_owned(),
        format!("tap,id={name},ifname={tap},script=no,downscript=no{header}"),
        "-device".to_owned(),
        format!("virtio-net-pci,netdev={name},mac={mac}{mtu}"),
    ]
}

fn libvirt(interface: &wire::Interface, offloads: bool) -> String {
    let wire::Interface { tap, mac, .. } = interface;
    let mut xml = String::from("<interface type='ethernet'>\n");
    let _ = writeln!(xml, "  <target dev='{tap}' managed='no'/>");
    let _ = writeln!(xml, "  <mac address='{mac}'/>");
    xml += "  <model type='virtio'/>\n";
    if let Some(mtu) = unusual_mtu(interface) {
        let _ = writeln!(xml, "  <mtu size='{mtu}'/>");
    }
    if !offloads {
        xml += "  <driver>\n";
        xml += "    <host csum='off' gso='off' tso4='off' tso6='off' ecn='off' ufo='off'/>\n";
        xml += "    <guest csum='off' tso4='off' tso6='off' ecn='off' ufo='off'/>\n";
        xml += "  </driver>\n";
    }
    xml += "</interface>\n";
    xml
}

/// For people: both, explained.
pub(crate) fn text(view: &NetdevView) -> String {
    let worker = view.worker.as_deref().unwrap_or("a worker that is not chosen yet");
    let datapath = match view.datapath.as_deref() {
        Some("system") => "kernel datapath: offloads on",
        Some(_) => "userspace datapath: offloads off",
        None => "datapath not known yet: offloads off, which works on both",
    };
    let mut out = format!("{}/{} on {worker} ({datapath})\n", view.slice, view.vm);
    if !view.deployed {
        let _ = writeln!(out, "the TAPs come with `trunkctl slice deploy {}`", view.slice);
    }
    out += "\nqemu:\n";
    for interface in &view.interfaces {
        for pair in interface.qemu.chunks(2) {
            let _ = writeln!(out, "  {}", pair.join(" "));
        }
    }
    out += "\nlibvirt, within <devices>:\n";
    for line in view.interfaces.iter().flat_map(|i| i.libvirt.lines()) {
        let _ = writeln!(out, "  {line}");
    }
    out
}

/// For scripts: one of the two, bare.
pub(crate) fn only(view: &NetdevView, launcher: Launcher) -> String {
    let each = view.interfaces.iter();
    match launcher {
        Launcher::Qemu => each
            .flat_map(|i| &i.qemu)
            .map(|argument| format!("{argument}\n"))
            .collect(),
        Launcher::Libvirt => each.map(|i| i.libvirt.as_str()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(datapath: &str) -> NetdevView {
        let interface = |name: &str, mtu| wire::Interface {
            name: name.to_owned(),
            tap: format!("tap_1002_{name}"),
            mac: "52:54:00:03:ea:01".to_owned(),
            mtu,
            ..wire::Interface::default()
        };
        let vm = wire::Vm {
            name: "web".to_owned(),
            worker: "w1".to_owned(),
            interfaces: vec![interface("eth0", 1500), interface("eth1", 1400)],
            ..wire::Vm::default()
        };
        let slice = wire::Slice {
            name: "shop".to_owned(),
            ..wire::Slice::default()
        };
        NetdevView::new(&slice, &vm, false, datapath.to_owned())
    }

    #[test]
    fn a_userspace_datapath_gets_no_offloads() {
        insta::assert_snapshot!(text(&view("netdev")));
    }

    #[test]
    fn a_kernel_datapath_keeps_offloads() {
        insta::assert_snapshot!(text(&view("system")));
    }

    #[test]
    fn an_unknown_datapath_gets_what_works_on_both() {
        assert_eq!(only(&view(""), Launcher::Qemu), only(&view("netdev"), Launcher::Qemu));
        assert_eq!(
            only(&view(""), Launcher::Libvirt),
            only(&view("netdev"), Launcher::Libvirt)
        );
    }

    #[test]
    fn a_script_gets_one_argument_a_line() {
        insta::assert_snapshot!(only(&view("netdev"), Launcher::Qemu));
    }
}
