//! Another node of the cluster, at the far end of the trunk: nothing but its prober.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use trunkline_agent::netlink;
use trunkline_agent::probe::counts::Counts;
use trunkline_agent::probe::engine::Engine;
use trunkline_agent::probe::inbound::Moment;
use trunkline_agent::probe::socket::Socket;
use trunkline_proto::resource::{Envelope, Probe, Spec, State};

/// It probes until it is dropped.
pub struct Far {
    engine: Arc<Mutex<Engine>>,
    began: Instant,
    probe: Probe,
    task: JoinHandle<()>,
}

impl Far {
    /// Begins.
    pub async fn start(name: &str, device: &'static str, probe: Probe) -> Self {
        let link = netlink::Handle::current().unwrap().link(device).await.unwrap().unwrap();
        let mut socket = Socket::open(device, link.index).unwrap().unwrap();
        let began = Instant::now();
        let mut engine = Engine::new(&name.parse().unwrap(), 1, Counts::default());
        let envelope = Envelope::seal(&Spec::Probe(probe.clone()), "");
        engine.set([(&envelope.key, envelope.hash, &probe)].into_iter(), Duration::ZERO);
        let engine = Arc::new(Mutex::new(engine));
        let shared = Arc::clone(&engine);
        let task = tokio::spawn(async move {
            loop {
                let next = shared.lock().unwrap().next().unwrap_or(Duration::from_secs(1));
                let moment = || Moment {
                    now: began.elapsed(),
                    unix_ms: 1,
                };
                tokio::select! {
                    () = sleep_until(began + next) => {}
                    heard = socket.receive(64, |frame| { shared.lock().unwrap().receive(frame, moment()); }) => heard.unwrap(),
                }
                let frames = shared.lock().unwrap().due(began.elapsed());
                for frame in frames {
                    socket.send(&frame).unwrap();
                }
            }
        });
        Self {
            engine,
            began,
            probe,
            task,
        }
    }

    /// What it says of the direction to itself.
    pub fn state(&self) -> (State, String) {
        let hash = Envelope::seal(&Spec::Probe(self.probe.clone()), "").hash;
        let engine = self.engine.lock().unwrap();
        let verdict = engine.verdict(self.probe.vlan, hash, self.began.elapsed()).unwrap();
        (verdict.state, verdict.reason)
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.task.abort();
    }
}
