//! A worker on a host of its own, driven from outside.

use super::*;

/// Longest wait for what takes less than five seconds on a machine that is not busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

type Work = Box<dyn FnOnce(&mut Ovs) + Send>;

enum Command {
    Update(Vec<Envelope>),
    Work(Work),
}

/// A worker on a host of its own, driven from outside.
pub(super) struct Site {
    name: &'static str,
    commands: Option<tokio::sync::mpsc::UnboundedSender<Command>>,
    pub(super) seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

impl Site {
    /// Its uplink `up0` is joined to the port `name` of the bridge between.
    pub(super) fn start(name: &'static str, alive_every: Duration) -> Self {
        let (commands, receiver) = tokio::sync::mpsc::unbounded_channel();
        let seen = Arc::<Mutex<Seen>>::default();
        let (here, thread_id) = mpsc::channel();
        let (go, may_go) = mpsc::channel();
        let board = seen.clone();
        let thread = std::thread::spawn(move || {
            alone(async || {
                here.send(gettid()).unwrap();
                may_go.recv().unwrap();
                live((name, alive_every), receiver, board).await;
            });
        });
        let namespace = format!("/proc/{}/task/{}/ns/net", std::process::id(), thread_id.recv().unwrap());
        run("ip", &["link", "add", name, "type", "veth", "peer", "name", "up0"]);
        for device in [name, "up0"] {
            run(
                "ethtool",
                &["-K", device, "tx", "off", "rx", "off", "txvlan", "off", "rxvlan", "off"],
            );
        }
        run("ip", &["link", "set", "up0", "netns", &namespace]);
        run("ip", &["link", "set", name, "master", "between", "up"]);
        go.send(()).unwrap();
        Self {
            name,
            commands: Some(commands),
            seen,
            thread: Some(thread),
        }
    }

    pub(super) fn update(&self, all: &[Envelope]) {
        let commands = self.commands.as_ref().unwrap();
        commands.send(Command::Update(all.to_vec())).ok().unwrap();
    }

    /// Does something on its host, beside its agent.
    pub(super) fn on<T: Send + 'static>(&self, work: impl FnOnce(&mut Ovs) -> T + Send + 'static) -> T {
        let (answer, answered) = mpsc::channel();
        let work: Work = Box::new(move |ovs| answer.send(work(ovs)).unwrap());
        self.commands.as_ref().unwrap().send(Command::Work(work)).ok().unwrap();
        answered.recv().unwrap()
    }

    pub(super) fn seen(&self, key: &str) -> Option<Observation> {
        self.seen.lock().unwrap().items.get(key).cloned()
    }

    pub(super) fn probe(&self) -> (Option<State>, String) {
        let seen = self.seen("probe probe_vlan110");
        (
            seen.as_ref().map(|seen| seen.state),
            seen.map(|seen| seen.reason).unwrap_or_default(),
        )
    }

    pub(super) fn facts(&self) -> ProbeFacts {
        match self.seen("probe probe_vlan110").and_then(|seen| seen.facts) {
            Some(Facts::Probe(facts)) => facts,
            other => panic!("{}: {other:?}", self.name),
        }
    }

    pub(super) fn until_degraded(&self, words: &str) -> Duration {
        until(&format!("{}: {words}", self.name), || {
            let probe = self.probe();
            if probe == (Some(State::Degraded), words.to_owned()) {
                Ok(())
            } else {
                Err(probe)
            }
        })
    }

    pub(super) fn until_ready(&self) -> Duration {
        until(&format!("{} to be ready", self.name), || match self.probe() {
            (Some(State::Ready), _) => Ok(()),
            other => Err(other),
        })
    }

    /// Packets that the flows have dropped as forged probe frames.
    pub(super) fn dropped_probes(&self) -> u64 {
        let dump = |_: &mut Ovs| {
            run(
                "ovs-ofctl",
                &["-O", "OpenFlow14", "dump-flows", "unix:/run/openvswitch/br-int.mgmt"],
            )
        };
        let flows = self.on(dump);
        let line = flows
            .lines()
            .find(|line| line.contains("table=1,") && line.contains("dl_type=0x88b5"));
        let packets = line.and_then(|line| line.split("n_packets=").nth(1)).unwrap();
        packets.split(',').next().unwrap().parse().unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.commands = None;
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

/// The host's own thread.
async fn live(
    (name, alive_every): (&str, Duration),
    mut commands: tokio::sync::mpsc::UnboundedReceiver<Command>,
    seen: Arc<Mutex<Seen>>,
) {
    run("ip", &["link", "set", "lo", "up"]);
    let mut ovs = Ovs::start().await;
    let pki = Pki::new();
    let mut controller = Controller::start(&pki).await;
    let state = tempfile::tempdir().unwrap();
    let mut config = config_of(name, &pki, controller.address, state.path());
    config.switch.socket = ovs.socket();
    config.switch.uplink = Some("up0".to_owned());
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    let validate = worker::validate(&config);
    let task = tokio::spawn(async move {
        let build = |cx: &node::NodeContext| Ok(worker::Worker::build(cx)?.alive_every(alive_every));
        node::serve(worker::PROGRAM, config, validate, build, token, || {}).await
    });
    let agent = Node::spawn(task, cancel);
    let mut session = controller.session().await;
    session.hello().await;
    session.welcome().await;
    let (mut generation, mut held) = (0, Vec::new());
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                None => break,
                Some(Command::Update(all)) => {
                    session.update(update(generation, generation + 1, &held, &all)).await;
                    (generation, held) = (generation + 1, all);
                }
                // In between the agent has a turn; what takes long is not done here.
                Some(Command::Work(work)) => work(&mut ovs),
            },
            message = session.try_next() => match message {
                Some(FromNode::Report(report)) => seen.lock().unwrap().take(report),
                Some(FromNode::Ack(_)) => {}
                other => panic!("{name}: {other:?}"),
            },
        }
    }
    agent.stop().await;
}
