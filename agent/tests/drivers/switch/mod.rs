use std::collections::{BTreeMap, BTreeSet};

mod converge;
mod others;

use trunkline_agent::netlink::{Handle, TapRequest};
use trunkline_agent::ovsdb::Client;
use trunkline_agent::switch::{
    self, Access, BridgeSpec, Datapath, FailMode, Labels, Mark, Observed, Plan, PortKind, SwitchPort, SwitchState,
    UplinkSpec,
};
use trunkline_agent::tap;
use trunkline_proto::VlanId;
use trunkline_proto::resource::{Port, PortOwner, State, Trunk};

use super::stand::{LIMIT, Ovs, alone, eventually, netlink, run, veth};

fn vlan(id: u32) -> VlanId {
    VlanId::try_from(id).unwrap()
}

fn port(vm: u32, id: Option<u32>) -> Port {
    Port {
        tap: format!("tap_{vm}_eth1").parse().unwrap(),
        vlan: id.map(vlan),
        mac: "52:54:00:03:e8:01".parse().unwrap(),
        addresses: Vec::new(),
        mtu: 1500,
        owner: PortOwner {
            slice: "red".into(),
            vm: "web".into(),
            interface: "eth1".into(),
        },
    }
}

fn desired(ports: &[Port], trunks: &[u32]) -> SwitchState {
    SwitchState {
        mark: Mark::new("w1"),
        bridge: BridgeSpec {
            name: "br-int".into(),
            datapath: Datapath::Netdev,
            adopt: false,
            fail_mode: FailMode::Standalone,
        },
        uplink: Some(UplinkSpec {
            name: "trunk0".into(),
            vlans: trunks.iter().map(|id| vlan(*id)).collect(),
        }),
        ports: ports
            .iter()
            .map(|port| (port.tap.to_string(), SwitchPort::from(port)))
            .collect(),
    }
}

fn internal(id: u32) -> SwitchPort {
    let mac = format!("52:55:00:01:00:{id:02x}").parse().unwrap();
    SwitchPort {
        kind: PortKind::Internal { mac, mtu: 1400 },
        access: Access::Vlan(vlan(id)),
        labels: Labels {
            kind: "gateway".into(),
            ..Labels::default()
        },
    }
}

/// A worker without its runtime: one pass is what the reconcile loop does.
struct Worker {
    ovs: Ovs,
    client: Client,
    netlink: Handle,
}

impl Worker {
    async fn start() -> Self {
        let ovs = Ovs::start().await;
        veth("trunk0");
        let client = ovs.client().await;
        Self {
            ovs,
            client,
            netlink: netlink(),
        }
    }

    async fn observe(&self) -> Observed {
        switch::observe(&self.client, &self.netlink).await.unwrap()
    }

    async fn taps(&self, ports: &[Port]) -> tap::Plan {
        let observed = self.observe().await;
        let plan = tap::plan(
            ports.iter().map(tap::Tap::from),
            observed.devices.values().map(|device| &device.link),
        );
        assert!(tap::create_and_correct(&plan, &self.netlink).await.is_empty());
        plan
    }

    async fn plan(&self, state: &SwitchState) -> Plan {
        switch::plan(state, &self.observe().await).unwrap()
    }

    async fn apply(&self, state: &SwitchState) -> Plan {
        let plan = self.plan(state).await;
        switch::execute(&plan, &self.client, &self.netlink, Some("00-trace-00"), LIMIT)
            .await
            .unwrap();
        plan
    }

    /// TAPs, ports, removals.
    async fn pass(&self, ports: &[Port], trunks: &[u32]) -> Plan {
        let taps = self.taps(ports).await;
        let plan = self.apply(&desired(ports, trunks)).await;
        tap::remove(&taps, &self.netlink).await.unwrap();
        plan
    }

    async fn judge(&self, port: &Port, trunks: &[u32]) -> switch::Judgement {
        let state = desired(std::slice::from_ref(port), trunks);
        switch::judge_port(port, &state, &self.observe().await, &BTreeMap::new())
    }

    async fn ready(&self, port: &Port, trunks: &[u32]) {
        eventually("port ready", async || {
            let judgement = self.judge(port, trunks).await;
            if judgement.state == State::Ready {
                Ok(())
            } else {
                Err(judgement.reason)
            }
        })
        .await;
    }
}
