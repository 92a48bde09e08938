//! A short campaign with a fixed seed: everything goes wrong, and everything is right again.

use std::time::Duration;

use trunkline_integration::campaign::{Orders, campaign, words};

/// Everything follows from it.
const SEED: u64 = 7;
/// No round begins after so long.
const TIME: Duration = Duration::from_secs(180);

#[test]
fn everything_is_as_the_slices_say_after_every_round_of_faults() {
    let orders = Orders {
        seed: SEED,
        time: TIME,
        workers: 2,
        // Whoever has to find out does it with the program.
        shrink: Duration::ZERO,
    };
    match campaign(&orders, &|line| println!("{line}")) {
        Ok(Ok(figures)) => {
            println!("{}", words(&figures));
            assert!(figures.quiet > 0 && figures.changes.0 > 0 && !figures.faults.is_empty());
        }
        Ok(Err(found)) => panic!("{found}"),
        Err(error) => panic!("{}", error.chain()),
    }
}
