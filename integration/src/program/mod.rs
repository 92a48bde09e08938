//! What the program `trunkline-lab` does for a person: a lab in the background, and the demo.

pub mod control;
pub mod state;
pub mod supervise;
