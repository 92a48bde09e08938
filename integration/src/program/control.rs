//! The supervisor's control socket: one JSON line asks, one answers. Guests belong to the supervisor, so they are asked
//! for here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::LabError;
use crate::guest::{Guest, Kind, Spec};
use crate::lab::Lab;
use crate::lab::fault::{Fault, Standing};

/// A question to the supervisor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// Start a guest.
    AddGuest {
        /// What it is made from.
        spec: Spec,
        /// Its kind.
        kind: Kind,
    },
    /// End a guest.
    DeleteGuest {
        /// `slice/vm`.
        name: String,
    },
    /// Run a command in a guest.
    ExecGuest {
        /// `slice/vm`.
        name: String,
        /// The command.
        argv: Vec<String>,
    },
    /// Start or end what belongs on a host.
    Daemons {
        /// The host.
        host: String,
        /// What is to be done.
        change: Change,
    },
    /// Make a fault between the hosts.
    AddFault {
        /// Which.
        fault: Fault,
    },
    /// Heal faults.
    Heal {
        /// One of them; all when absent.
        id: Option<u32>,
    },
    /// Say which faults stand.
    Faults,
    /// Say what runs.
    Status,
}

/// What is to be done with a host's daemons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Start all that do not run.
    Start,
    /// End ours.
    Stop,
    /// End ours, and start it again.
    Restart,
}

/// Its answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// Done.
    Done,
    /// Done to these programs.
    Changed {
        /// Their names.
        programs: Vec<String>,
    },
    /// Faults that stand, or that were healed.
    Faults {
        /// The oldest first.
        faults: Vec<Standing>,
    },
    /// How a command ended.
    Output {
        /// Exit code.
        status: i32,
        /// Standard output.
        stdout: String,
        /// Standard error.
        stderr: String,
    },
    /// What runs.
    Status(Status),
    /// It went wrong, in words.
    Failed {
        /// Why.
        why: String,
    },
}

/// What runs in the lab.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// Each daemon: host, program, process, or how it ended.
    pub daemons: Vec<(String, String, Result<u32, String>)>,
    /// Each guest.
    pub guests: Vec<GuestStatus>,
    /// How many faults stand between the hosts.
    #[serde(default)]
    pub faults: usize,
}

/// One guest.
#[derive(Debug, Serialize, Deserialize)]
pub struct GuestStatus {
    /// `slice/vm`.
    pub name: String,
    /// Number of the VM it was started for.
    pub vm_id: u32,
    /// Host that it runs on.
    pub worker: String,
    /// Its kind.
    pub kind: Kind,
    /// Its namespace on the host, when it is one.
    pub netns: Option<String>,
    /// Interfaces and the addresses they were leased.
    pub addresses: Vec<(String, Option<String>)>,
    /// Why it is no guest of a VM of today, when it is none.
    #[serde(default)]
    pub stale: Option<String>,
}

/// Asks the supervisor of the lab in this folder.
pub fn ask(folder: &Path, request: &Request) -> Result<Answer, LabError> {
    let (_open, path) = socket(folder)?;
    let what = || format!("cannot talk to the lab at {}", folder.display());
    let mut stream = UnixStream::connect(&path).map_err(LabError::io(what()))?;
    let line = serde_json::to_string(request).map_err(|error| LabError::Other(error.to_string()))?;
    stream
        .write_all((line + "\n").as_bytes())
        .map_err(LabError::io(what()))?;
    let mut answer = String::new();
    BufReader::new(stream)
        .read_line(&mut answer)
        .map_err(LabError::io(what()))?;
    match serde_json::from_str(&answer) {
        Ok(Answer::Failed { why }) => Err(LabError::Other(why)),
        Ok(answer) => Ok(answer),
        Err(error) => Err(LabError::Other(format!("the lab answered nonsense: {error}"))),
    }
}

/// The socket's path through an open folder: a path of more than 107 bytes cannot be used for one.
fn socket(folder: &Path) -> Result<(File, PathBuf), LabError> {
    let open = File::open(folder).map_err(LabError::io(format!("cannot open {}", folder.display())))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/control.socket", open.as_raw_fd()));
    Ok((open, path))
}

type Guests = Mutex<BTreeMap<String, Arc<Guest>>>;

/// The supervisor's side.
pub struct Control {
    lab: Arc<Lab>,
    guests: Guests,
}

impl Control {
    /// Starts answering.
    pub fn start(lab: Arc<Lab>) -> Result<Arc<Self>, LabError> {
        let (_open, path) = socket(lab.folder())?;
        let what = format!("cannot listen in {}", lab.folder().display());
        let listener = UnixListener::bind(&path).map_err(LabError::io(what))?;
        let control = Arc::new(Self {
            lab,
            guests: Mutex::default(),
        });
        let server = Arc::downgrade(&control);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some(control) = server.upgrade() else { return };
                // A caller that went away needs no answer.
                std::thread::spawn(move || drop(control.serve(stream)));
            }
        });
        Ok(control)
    }

    fn serve(&self, mut stream: UnixStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut line = String::new();
        BufReader::new(stream.try_clone()?).read_line(&mut line)?;
        let answer = match serde_json::from_str(&line) {
            Ok(request) => self
                .answer(request)
                .unwrap_or_else(|error| Answer::Failed { why: error.chain() }),
            Err(error) => Answer::Failed {
                why: format!("not understood: {error}"),
            },
        };
        let answer = serde_json::to_string(&answer).map_err(std::io::Error::other)?;
        stream.write_all((answer + "\n").as_bytes())
    }

    fn answer(&self, request: Request) -> Result<Answer, LabError> {
        match request {
            Request::AddGuest { spec, kind } => self.add(spec, kind),
            Request::DeleteGuest { name } => {
                self.guest(&name)?;
                self.guests().remove(&name);
                Ok(Answer::Done)
            }
            Request::ExecGuest { name, argv } => {
                let output = self.guest(&name)?.exec(&argv)?;
                Ok(Answer::Output {
                    status: output.status,
                    stdout: output.stdout,
                    stderr: output.stderr,
                })
            }
            Request::Daemons { host, change } => {
                let programs = super::daemons::change(&self.lab, &host, change)?;
                Ok(Answer::Changed { programs })
            }
            Request::AddFault { fault } => {
                let id = self.lab.fault(fault)?;
                let mut faults = self.lab.faults()?;
                faults.retain(|standing| standing.id == id);
                Ok(Answer::Faults { faults })
            }
            Request::Heal { id } => self.lab.heal(id).map(|faults| Answer::Faults { faults }),
            Request::Faults => self.lab.faults().map(|faults| Answer::Faults { faults }),
            Request::Status => self.status().map(Answer::Status),
        }
    }

    fn add(&self, spec: Spec, kind: Kind) -> Result<Answer, LabError> {
        let name = spec.name.clone();
        if self.guests().contains_key(&name) {
            return Err(LabError::Other(format!(
                "a guest of {name} runs already; end it with: guest del {name}"
            )));
        }
        let guest = Guest::start(self.lab.host(&spec.worker)?, spec, kind)?;
        self.guests().insert(name, Arc::new(guest));
        Ok(Answer::Done)
    }

    fn status(&self) -> Result<Status, LabError> {
        let guests: Vec<Arc<Guest>> = self.guests().values().map(Arc::clone).collect();
        let of = |guest: &Arc<Guest>| GuestStatus {
            name: guest.spec().name.clone(),
            worker: guest.spec().worker.clone(),
            kind: guest.kind(),
            vm_id: guest.spec().vm_id,
            stale: None,
            netns: guest.netns().map(str::to_owned),
            addresses: guest
                .spec()
                .nics
                .iter()
                .map(|nic| (nic.name.clone(), address(guest, &nic.name)))
                .collect(),
        };
        Ok(Status {
            daemons: self.lab.daemons(),
            guests: guests.iter().map(of).collect(),
            faults: self.lab.faults()?.len(),
        })
    }

    fn guest(&self, name: &str) -> Result<Arc<Guest>, LabError> {
        let guests = self.guests();
        guests.get(name).map(Arc::clone).ok_or_else(|| {
            let all: Vec<&str> = guests.keys().map(String::as_str).collect();
            let known = if all.is_empty() {
                "no guest runs".to_owned()
            } else {
                format!("there are: {}", all.join(" "))
            };
            LabError::Other(format!(
                "no guest of {name} runs; {known}. Start it with: guest add {name}"
            ))
        })
    }

    fn guests(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Guest>>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn address(guest: &Guest, interface: &str) -> Option<String> {
    guest
        .lease(interface)
        .ok()
        .flatten()
        .map(|lease| format!("{}/{}", lease.address, lease.prefix))
}
