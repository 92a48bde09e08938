//! How many frames a node may send, whatever it is asked for. Pure.

use std::time::Duration;

/// Frames a second; a node with 200 pairs needs 400 to 600 of them.
const RATE: u32 = 2000;
/// Frames at once: less than the queue of the port holds.
const BURST: u32 = 600;

/// A bucket that fills with time.
#[derive(Debug)]
pub struct Budget {
    left: u32,
    at: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            left: BURST,
            at: Duration::ZERO,
        }
    }
}

impl Budget {
    /// Adds what time has brought.
    pub fn refill(&mut self, now: Duration) {
        let micros = now.saturating_sub(self.at).as_micros();
        let brought = u32::try_from(micros * u128::from(RATE) / 1_000_000).unwrap_or(u32::MAX);
        if brought > 0 {
            self.left = self.left.saturating_add(brought).min(BURST);
            self.at = if self.left == BURST {
                now
            } else {
                self.at + Duration::from_secs(1).saturating_mul(brought) / RATE
            };
        }
    }

    /// Spends so many, when as many and the reserve are left.
    pub fn spend(&mut self, frames: u32, reserve: u32) -> bool {
        let enough = self.left >= frames.saturating_add(reserve);
        if enough {
            self.left -= frames;
        }
        enough
    }

    /// Returns what was spent and not used.
    pub fn give_back(&mut self, spent: u32, used: usize) {
        self.left += spent.saturating_sub(u32::try_from(used).unwrap_or(u32::MAX));
    }

    /// When there will be so many.
    #[must_use]
    pub fn refilled(&self, frames: u32) -> Duration {
        match frames.saturating_sub(self.left) {
            0 => Duration::ZERO,
            missing => {
                // One microsecond more: the division rounds down.
                let takes = Duration::from_secs(1).saturating_mul(missing) / RATE + Duration::from_micros(1);
                self.at.saturating_add(takes)
            }
        }
    }
}
