//! What nobody has asked for: no fault of any host, and named all the same.

use crate::scene::{GUESTS, INTERNET, Scene};
use crate::table::{Heal, Row, nothing};

const DRAFT: &str = "
slices:
  - name: later
    vms:
      - { name: x, worker: w1, internet_enabled: true, data_interfaces_count: 1 }
      - { name: y, worker: w2, data_interfaces_count: 1 }
    links:
      - [x.eth1, y.eth1]
";

fn drafted(scene: &mut Scene) -> Heal {
    let path = scene.lab.folder().join("draft.yaml");
    std::fs::write(&path, DRAFT).unwrap();
    scene.must_trunkctl(&["apply", "-f", &path.display().to_string()]);
    Box::new(|scene| drop(scene.must_trunkctl(&["slice", "delete", "later"])))
}

fn cordoned(scene: &mut Scene) -> Heal {
    scene.must_trunkctl(&["node", "cordon", "w1"]);
    Box::new(|scene| drop(scene.must_trunkctl(&["node", "uncordon", "w1"])))
}

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::broken(
            "no link joins the two",
            ["shop/web.eth1", "shop/idle.eth1"],
            |_| nothing(),
            ("joined", ""),
            "no link joins them",
            "use web.eth2 and idle.eth1",
        ),
        Row::broken(
            "the two are in different slices",
            ["shop/web.eth1", "lab/b.eth1"],
            |_| nothing(),
            ("joined", ""),
            "are in different slices",
            "put both VMs into one slice",
        ),
        Row::broken(
            "the VM has no internet",
            ["shop/idle.eth0", "internet"],
            |_| nothing(),
            ("joined", ""),
            "idle has no internet",
            "set `internet_enabled: true` for idle",
        ),
        Row::broken(
            "the link is not deployed",
            ["later/x.eth1", "later/y.eth1"],
            drafted,
            ("joined", ""),
            "the slice later is not deployed",
            "`trunkctl slice deploy later`",
        ),
        Row::broken(
            "the VM is not deployed",
            ["later/x.eth0", "internet"],
            drafted,
            ("joined", ""),
            "the slice later is not deployed",
            "`trunkctl slice deploy later`",
        ),
        Row::fine("a cordoned worker keeps its guests", GUESTS, cordoned),
        Row::fine("and their internet", INTERNET, cordoned),
    ]
}
