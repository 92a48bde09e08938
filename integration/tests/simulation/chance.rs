//! The system's randomness, which follows from the seed on a thread that tells a story.
//!
//! Tokio's `select!` and every hash map draw from the system, and no library lets a program say otherwise. So this test's binary has a
//! `getrandom` of its own, which the standard library then finds instead of the C library's. Nothing else in the repository has one.

use std::{
    cell::RefCell,
    ffi::{c_long, c_uint, c_void},
};

thread_local! {
    static STREAM: RefCell<Option<fastrand::Rng>> = const { RefCell::new(None) };
}

/// From now on this thread's randomness follows from `seed`.
pub(crate) fn follows(seed: u64) {
    STREAM.set(Some(fastrand::Rng::with_seed(seed)));
    fastrand::seed(seed);
}

/// As the C library has it.
///
/// # Safety
/// `buffer` is `length` bytes long.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> c_long {
    let followed = STREAM.try_with(|stream| {
        let mut stream = stream.try_borrow_mut().ok()?;
        // SAFETY: the caller says so.
        let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
        stream.as_mut()?.fill(bytes);
        c_long::try_from(length).ok()
    });
    match followed {
        Ok(Some(length)) => length,
        // SAFETY: the same call, with the same promise.
        _ => unsafe { nix::libc::syscall(nix::libc::SYS_getrandom, buffer, length, flags) },
    }
}
