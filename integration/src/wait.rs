//! Waiting for a condition, with a deadline that says what was seen instead.

use std::time::{Duration, Instant};

use crate::LabError;

const PAUSE: Duration = Duration::from_millis(30);

/// Asks `look` until it answers `Ok`; its last `Err` is what was seen when the time is over.
pub fn until<T>(what: &str, within: Duration, mut look: impl FnMut() -> Result<T, String>) -> Result<T, LabError> {
    let deadline = Instant::now() + within;
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(seen) if Instant::now() >= deadline => {
                return Err(LabError::Timeout {
                    what: what.to_owned(),
                    after: within,
                    seen,
                });
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_never_comes_says_what_was_seen() {
        let error = until("rain", Duration::from_millis(1), || Err::<(), _>("sun".to_owned())).unwrap_err();
        assert!(error.to_string().contains("rain did not happen"), "{error}");
        assert!(error.to_string().ends_with("last seen: sun"), "{error}");
    }

    #[test]
    fn a_condition_that_comes_is_answered() {
        let mut times = 0;
        let found = until("three", Duration::from_secs(5), || {
            times += 1;
            if times == 3 { Ok(times) } else { Err(times.to_string()) }
        });
        assert_eq!(found.unwrap(), 3);
    }
}
