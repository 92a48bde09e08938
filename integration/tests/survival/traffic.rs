//! Guests that ask each other and the internet every millisecond, and what of it was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use trunkline_integration::guest::{Account, Guest, Kind, Lease, Pinger, Spec};
use trunkline_integration::lab::Lab;
use trunkline_integration::lab::layout::INTERNET_ADDRESS;
use trunkline_proto::wire::Interface;

use crate::looks::{interface, leases};
use crate::support::{LIMIT, guests};

/// Two guests on two workers, both with internet; one link is plain, the other has port security.
pub(crate) const TOPOLOGY: &str = "
slices:
  - name: shop
    vms:
      - { name: web, worker: w1, internet_enabled: true, data_interfaces_count: 2 }
      - { name: db, worker: w2, internet_enabled: true, data_interfaces_count: 2 }
    links:
      - { name: plain, ends: [web.eth1, db.eth1] }
      - { name: secured, port_security: true, ends: [web.eth2, db.eth2] }
";
/// Every interface that has a lease.
const NICS: [&str; 6] = [
    "shop/web.eth0",
    "shop/web.eth1",
    "shop/web.eth2",
    "shop/db.eth0",
    "shop/db.eth1",
    "shop/db.eth2",
];
/// For deaths that must cost nothing at all.
pub(crate) const EVERY_MS: Duration = Duration::from_millis(1);
/// For times at which a switch is changed. A userspace switch forwards in the thread that makes its ports, so frames wait
/// until that is done, and of a frame each millisecond more are waiting than a socket holds.
pub(crate) const NOW_AND_THEN: Duration = Duration::from_millis(20);
/// Answers in a row that say that a path works.
const ROW: usize = 50;

/// The guests of the topology, each with its leases.
pub(crate) struct Guests {
    all: BTreeMap<String, Guest>,
    nics: BTreeMap<&'static str, Interface>,
}

impl Guests {
    /// Starts them and waits for their leases. The controller is asked now and never again.
    pub(crate) fn start(lab: &Lab) -> Self {
        let guests = Self {
            all: guests(lab, &["shop"]),
            nics: NICS.into_iter().map(|name| (name, interface(lab, name))).collect(),
        };
        guests.leases();
        guests
    }

    /// `slice/vm.interface`.
    pub(crate) fn nic(&self, name: &str) -> &Interface {
        &self.nics[name]
    }

    fn address(&self, name: &str) -> Ipv4Addr {
        self.nic(name).address.parse().unwrap()
    }

    /// Ends one, as its worker's end would; what it takes to start it again.
    pub(crate) fn end(&mut self, name: &str) -> Spec {
        self.all.remove(name).unwrap().spec().clone()
    }

    /// Starts one again and waits for its leases.
    pub(crate) fn start_again(&mut self, lab: &Lab, spec: Spec) {
        let worker = lab.host(&spec.worker).unwrap();
        let guest = Guest::start(worker, spec.clone(), Kind::Namespace).unwrap();
        self.all.insert(spec.name, guest);
        self.leases();
    }

    /// The lease of each interface, as the guest has it.
    pub(crate) fn leases(&self) -> BTreeMap<&'static str, Lease> {
        let lease = |name: &str| self.guest(name).await_lease(nic_of(name), LIMIT).unwrap();
        NICS.into_iter().map(|name| (name, lease(name))).collect()
    }

    fn guest(&self, name: &str) -> &Guest {
        &self.all[name.split_once('.').map_or(name, |(guest, _)| guest)]
    }

    /// A DHCP client that knows of no lease asks for one, as if the guest had just started; the address that it gets.
    pub(crate) fn discover(&self, name: &str) -> String {
        let argv = [
            "udhcpc",
            "-f",
            "-n",
            "-q",
            "-i",
            nic_of(name),
            "-s",
            "/bin/true",
            "-t",
            "20",
            "-T",
            "1",
        ];
        let output = self.guest(name).exec(&argv).unwrap();
        assert!(output.ok(), "{name} got no lease: {}{}", output.stdout, output.stderr);
        let said = output.stdout + &output.stderr;
        let (_, rest) = said.split_once("lease of ").unwrap_or_else(|| panic!("{said}"));
        rest.split_whitespace().next().unwrap().to_owned()
    }

    /// Who has which address, in the servers' own files: every line of every VLAN as it is.
    pub(crate) fn lease_files(&self, lab: &Lab) -> BTreeSet<String> {
        let vlans: BTreeSet<u32> = self.nics.values().map(|nic| nic.vlan).collect();
        let lines = vlans.into_iter().map(|vlan| leases(lab, vlan));
        lines
            .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }

    /// As `lease_files`, without the time at which a lease ends: a client that asks again moves that.
    pub(crate) fn holders(&self, lab: &Lab) -> BTreeSet<String> {
        let lines = self.lease_files(lab);
        lines
            .iter()
            .map(|line| line.split_once(' ').unwrap().1.to_owned())
            .collect()
    }
}

fn nic_of(name: &str) -> &str {
    name.split_once('.').unwrap().1
}

/// Paths between the guests, and to the internet, that are tried all the time.
pub(crate) struct Traffic(Vec<Pinger>);

impl Traffic {
    pub(crate) fn start(guests: &Guests, every: Duration) -> Self {
        let paths = [
            ("shop/web", guests.address("shop/db.eth1")),
            ("shop/db", guests.address("shop/web.eth2")),
            ("shop/web", INTERNET_ADDRESS),
        ];
        let start = |(from, to): (&str, _)| Pinger::start(guests.guest(from), to, every).unwrap();
        let traffic = Self(paths.map(start).into());
        traffic.await_all();
        traffic
    }

    /// Waits until every path works.
    pub(crate) fn await_all(&self) {
        for pinger in &self.0 {
            pinger.await_answers(ROW, LIMIT).unwrap();
        }
    }

    /// What became of each path's requests since then.
    pub(crate) fn since(&self, start: Instant) -> Vec<(&str, Account)> {
        self.0
            .iter()
            .map(|pinger| (pinger.name(), pinger.account(start)))
            .collect()
    }
}

/// One line: what was lost on each path, and how much longer round trips took than while nothing happened, on the path
/// where that was most.
pub(crate) fn report(what: &str, calm: &[(&str, Account)], now: &[(&str, Account)]) {
    let lost: Vec<String> = now.iter().map(|(_, now)| now.lost.to_string()).collect();
    let sent: usize = now.iter().map(|(_, now)| now.sent).sum();
    let gap = now.iter().map(|(_, now)| now.gap).max().unwrap_or_default();
    let added = |of: fn(&Account) -> Duration| {
        let ms = |account| of(account).as_secs_f64() * 1e3;
        let each = calm.iter().zip(now).map(|((_, calm), (_, now))| ms(now) - ms(calm));
        each.fold(f64::NEG_INFINITY, f64::max)
    };
    println!(
        "{what}: of {sent} frames {} lost on each path ({} ms); round trip {:+.2} ms, 99 of 100 {:+.2} ms, worst {:+.1} ms",
        lost.join(", "),
        gap.as_millis(),
        added(|account| account.median),
        added(|account| account.slow),
        added(|account| account.worst),
    );
}
