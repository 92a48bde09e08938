//! Rows as a person and as a program read them.

use comfy_table::{ContentArrangement, Table};

use crate::figure::{Figure, Goal, Row};

/// The figures that there are.
pub(crate) fn list(figures: &[Figure]) -> String {
    let mut table = lines(&["NAME", "WHAT", "AGAINST"]);
    for figure in figures {
        table.add_row([figure.name, figure.what, figure.floor]);
    }
    table.to_string()
}

/// All rows.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut table = lines(&["NAME", "OURS", "FLOOR", "UNIT", "RATIO", "GOAL", "MET", "TIMES"]);
    for row in rows {
        table.add_row([
            row.name.clone(),
            with_spread(row.value, row.spread),
            match (row.floor, row.floor_spread) {
                (Some(floor), Some(spread)) => with_spread(floor, spread),
                _ => String::new(),
            },
            row.unit.to_owned(),
            row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            goal(row.goal),
            met(row).to_owned(),
            row.repetitions.to_string(),
        ]);
    }
    format!("{table}\n\nMedians unless the name says otherwise, (lowest to highest).")
}

/// One row while others are still being measured.
pub(crate) fn line(row: &Row) -> String {
    let floor = row
        .floor
        .map(|floor| format!(", floor {}", number(floor)))
        .unwrap_or_default();
    let goal = match row.goal {
        Goal::None => String::new(),
        _ => format!(", goal {}: {}", goal(row.goal), met(row)),
    };
    format!("  {} {} {}{floor}{goal}", row.name, number(row.value), row.unit)
}

/// One row as JSON.
pub(crate) fn json(row: &Row) -> serde_json::Value {
    serde_json::to_value(row).unwrap_or_default()
}

fn lines(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table
}

/// `yes`, `MISSED`, or nothing without a goal.
pub(crate) fn met(row: &Row) -> &'static str {
    match row.met {
        Some(true) => "yes",
        Some(false) => "MISSED",
        None => "",
    }
}

/// In words.
pub(crate) fn goal(goal: Goal) -> String {
    match goal {
        Goal::AtMostTimes(times) => format!("<= {times} x"),
        Goal::AtLeastTimes(times) => format!(">= {times} x"),
        Goal::AtMostMore(more) => format!("<= floor + {}", number(more)),
        Goal::AtMost(most) => format!("<= {}", number(most)),
        Goal::None => String::new(),
    }
}

fn with_spread(value: f64, [lowest, highest]: [f64; 2]) -> String {
    format!("{} ({} to {})", number(value), number(lowest), number(highest))
}

/// Three significant digits or more; no more than a person reads.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
