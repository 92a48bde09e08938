//! What the program `trunkline-lab` does for a person: a lab in the background, and the demo.

pub mod background;
pub mod console;
pub mod control;
pub mod daemons;
pub mod faults;
pub mod guests;
pub mod state;
pub mod supervise;

use comfy_table::{ContentArrangement, Table};

/// A table without lines, as wide as its text.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table
}
