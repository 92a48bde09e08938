//! `trunkline-frames eth1:HEX ...`: sends raw frames from inside a guest of the lab. A program of its own, so that it is
//! small enough to be put into a real machine.

use std::process::ExitCode;

use trunkline_integration::attacks::{Burst, inject};

fn main() -> ExitCode {
    let bursts: Result<Vec<Burst>, String> = std::env::args().skip(1).map(|word| word.parse()).collect();
    match bursts.and_then(|bursts| inject::send(&bursts)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
