//! A clock for simulations, where time passes as the simulation says.

use std::{cell::Cell, time::SystemTime};

thread_local! {
    static CLOCK: Cell<Option<fn() -> SystemTime>> = const { Cell::new(None) };
}

/// From now on this thread's controllers ask `clock` for the time.
pub fn set_clock(clock: fn() -> SystemTime) {
    CLOCK.set(Some(clock));
}

/// The time, where a simulation says it.
pub(crate) fn now() -> Option<SystemTime> {
    CLOCK.get().map(|clock| clock())
}
