//! A host that keeps everything in memory.

use super::*;

pub const PROGRAM: Program = Program {
    service: "trunkline-agent",
    version: "0",
    role: Role::Worker,
    kinds: &[Kind::Port, Kind::Trunk],
};

/// What the host in memory has; tests look at it and break it.
#[derive(Clone, Default)]
pub struct World(pub Arc<Mutex<Things>>);

#[derive(Default)]
pub struct Things {
    pub there: BTreeMap<Key, Vec<u8>>,
    pub passes: usize,
    pub broken: Option<String>,
    /// Name of a resource that somebody has changed; mended by the next pass.
    pub changed: Option<String>,
}

impl World {
    pub fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().there.keys().map(ToString::to_string).collect()
    }

    pub async fn until(&self, what: &str, holds: impl Fn(&Things) -> bool) {
        let wait = async {
            while !holds(&self.0.lock().unwrap()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(SOON, wait).await.is_err() {
            panic!("{what}: not so in time; there is {:?}", self.names());
        }
    }
}

pub(super) struct MemoryHost {
    pub(super) world: World,
}

impl Host for MemoryHost {
    fn facts(&self) -> HostFacts {
        HostFacts {
            datapath: "netdev".to_owned(),
            ovs_version: "3".to_owned(),
            uplink: "up0".to_owned(),
        }
    }

    async fn pass(&mut self, desired: &Desired) -> Pass {
        let mut things = self.world.0.lock().unwrap();
        things.passes += 1;
        things.there = desired
            .items
            .iter()
            .map(|(k, i)| (k.clone(), i.hash.to_vec()))
            .collect();
        let broken = things.broken.clone();
        let changed = things.changed.take();
        let repairs = desired
            .items
            .keys()
            .filter(|key| Some(key.name.as_str()) == changed.as_deref());
        let repair = |key: &Key| node::Repair {
            key: key.clone(),
            what: "it was changed".to_owned(),
        };
        let observe = |(key, item): (&Key, &node::Item)| match &broken {
            Some(name) if key.name.as_str() == name => item.observation(key, State::Failed, "broken", None),
            _ => item.observation(key, State::Ready, "", None),
        };
        Pass {
            observations: desired.items.iter().map(observe).collect(),
            clean: true,
            retry_after: None,
            repairs: repairs.map(repair).collect(),
            ..Pass::default()
        }
    }
}
