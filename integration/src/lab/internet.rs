//! The internet: an HTTP server on port 80 that tells each caller the address it came from, and writes it down.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};

use super::host::Host;
use super::layout::INTERNET_ADDRESS;
use super::process::open_log;
use crate::LabError;

const CALLER_LIMIT: Duration = Duration::from_secs(5);

/// Who called, as the server saw it. Dropping it ends the server.
#[derive(Debug)]
pub struct Internet {
    callers: Arc<Mutex<Vec<IpAddr>>>,
    listener: Arc<TcpListener>,
}

impl Internet {
    /// Starts the server inside the internet host.
    pub(crate) fn start(host: &Host) -> Result<Self, LabError> {
        let listener = host
            .run(|| TcpListener::bind((INTERNET_ADDRESS, 80)))?
            .map_err(LabError::io("the internet host cannot listen on port 80"))?;
        let mut log = open_log(&host.folder().join("log/http.log"))?;
        let internet = Self {
            callers: Arc::default(),
            listener: Arc::new(listener),
        };
        let callers = Arc::clone(&internet.callers);
        let listener = Arc::clone(&internet.listener);
        std::thread::spawn(move || {
            // Ends with an error once the socket is shut down.
            while let Ok((stream, peer)) = listener.accept() {
                callers.lock().unwrap_or_else(PoisonError::into_inner).push(peer.ip());
                // A log that cannot be written must not stop the server.
                let _ = writeln!(log, "{}", peer.ip());
                std::thread::spawn(move || answer(stream, peer.ip()));
            }
        });
        Ok(internet)
    }

    /// Address of every caller so far, oldest first.
    pub fn callers(&self) -> Vec<IpAddr> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Internet {
    /// A socket that somebody still listens on would keep the host's network alive.
    fn drop(&mut self) {
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
    }
}

/// A caller that says nothing, or goes away, costs only itself.
fn answer(mut stream: TcpStream, peer: IpAddr) {
    let _ = stream.set_read_timeout(Some(CALLER_LIMIT));
    let _ = stream.read(&mut [0; 2048]);
    let body = format!("this is the internet; you come from {peer}\n");
    let head = format!(
        "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all((head + &body).as_bytes());
}
