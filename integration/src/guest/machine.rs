//! A real machine: Debian's cloud kernel and busybox under qemu, its interfaces on the worker's TAPs.
//!
//! Emulation only, since hardware acceleration cannot be assumed. `vnet_hdr=off` because the userspace datapath hands on
//! a frame whose checksum the guest left to its network card.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Spec;
use super::console::Console;
use super::initramfs;
use crate::LabError;
use crate::lab::{Host, Output, Running, programs};
use crate::wait::until;

/// It takes about four seconds on an idle machine.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

pub(super) struct Machine {
    console: Mutex<Console>,
    _qemu: Running,
}

impl Machine {
    pub(super) fn start(worker: &Arc<Host>, spec: &Spec) -> Result<Self, LabError> {
        let socket = format!("/run/machine-{}.console", spec.vm_id);
        let mut qemu = worker.spawn(&format!("machine-{}", spec.vm_id), &arguments(worker, spec, &socket)?)?;
        let path = worker.path(&socket);
        let mut console = until(
            &format!("the console of {}", spec.name),
            Duration::from_secs(20),
            || {
                if let Some(status) = qemu.ended() {
                    return Ok(Err(crate::lab::ended(worker.name(), "qemu", status, qemu.log())));
                }
                Console::connect(&path).map(Ok).map_err(|error| error.to_string())
            },
        )??;
        console.await_ready(BOOT_LIMIT)?;
        Ok(Self {
            console: Mutex::new(console),
            _qemu: qemu,
        })
    }

    pub(super) fn exec(&self, argv: &[&str], limit: Duration) -> Result<Output, LabError> {
        self.console
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .run(argv, limit)
    }
}

fn arguments(worker: &Host, spec: &Spec, socket: &str) -> Result<Vec<String>, LabError> {
    let kernel = programs::guest_file("vmlinuz")?.display().to_string();
    let initramfs = initramfs::with_program(&worker.folder().join("guests"))?
        .display()
        .to_string();
    let serial = format!("unix:{socket},server=on,wait=on");
    let fixed = [
        "qemu-system-x86_64",
        "-accel",
        "tcg",
        "-m",
        "128",
        "-nodefaults",
        "-display",
        "none",
        "-monitor",
        "none",
        "-no-reboot",
        "-kernel",
        &kernel,
        "-initrd",
        &initramfs,
        "-append",
        "console=ttyS0 quiet panic=-1",
        // Nothing is to be started over the network.
        "-global",
        "virtio-net-pci.romfile=",
        "-serial",
        &serial,
    ];
    let mut argv: Vec<String> = fixed.iter().map(|&part| part.to_owned()).collect();
    if !spec.netdev.is_empty() {
        argv.extend(spec.netdev.iter().cloned());
        return Ok(argv);
    }
    for (number, nic) in spec.nics.iter().enumerate() {
        let netdev = format!(
            "tap,id=net{number},ifname={},script=no,downscript=no,vnet_hdr=off",
            nic.tap
        );
        let device = format!("virtio-net-pci,netdev=net{number},mac={}", nic.mac);
        argv.extend(["-netdev".to_owned(), netdev, "-device".to_owned(), device]);
    }
    Ok(argv)
}
