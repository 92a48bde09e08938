//! The supervisor: the process that holds a lab in the background, and how any program with a lab ends on a signal.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use tokio::signal::unix::{SignalKind, signal};

use super::control::Control;
use super::state::State;
use crate::LabError;
use crate::lab::{self, Lab, Options};

/// Holds a lab until a signal ends this process. Says `ready` on standard output.
pub fn run(workers: u8, folder: PathBuf, daemons: bool) -> Result<(), LabError> {
    end_on_signal()?;
    // Already leading a session is as good.
    let _ = nix::unistd::setsid();
    let lab = Arc::new(Lab::start(&Options {
        workers,
        folder: Some(folder),
        daemons,
        ..Options::default()
    })?);
    let _control = Control::start(Arc::clone(&lab))?;
    State::of(&lab)?.write(lab.folder())?;
    super::console::say_line("ready")?;
    loop {
        std::thread::park();
    }
}

/// From here on SIGINT, SIGTERM and SIGHUP end every lab of this process in order, and then the process.
pub fn end_on_signal() -> Result<(), LabError> {
    let (listening, answer) = mpsc::channel();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(
            move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(wait_and_end(listening)),
                Err(error) => drop(listening.send(Err(error))),
            },
        )
        .map_err(LabError::io("cannot start a thread"))?;
    answer
        .recv()
        .map_err(|_| LabError::Other("cannot listen for signals".to_owned()))?
        .map_err(LabError::io("cannot listen for signals"))
}

async fn wait_and_end(listening: mpsc::Sender<std::io::Result<()>>) {
    let all = || {
        Ok((
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ))
    };
    let (mut interrupt, mut terminate, mut hangup) = match all() {
        Ok(signals) => signals,
        Err(error) => return drop(listening.send(Err(error))),
    };
    let _ = listening.send(Ok(()));
    let number = tokio::select! {
        // None of them loses anything when another one came first: the process ends.
        _ = interrupt.recv() => 2,
        _ = terminate.recv() => 15,
        _ = hangup.recv() => 1,
    };
    ENDING.store(true, Ordering::SeqCst);
    lab::end_all();
    std::process::exit(128 + number);
}

/// Set before anything is ended because of a signal.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Does not return when a signal is ending this process: what goes wrong now goes wrong because its lab is taken away
/// from under it, and the status is the signal's.
pub fn leave_it_to_the_signal() {
    while ENDING.load(Ordering::SeqCst) {
        std::thread::park();
    }
}
