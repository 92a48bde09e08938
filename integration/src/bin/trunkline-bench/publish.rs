//! The results in the repository: the generated part of BENCHMARKS.md and its pictures.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use trunkline_integration::LabError;

use crate::figure::{Figure, Row};
use crate::machine;
use crate::plot::{self, Line};
use crate::report::{goal, met, number};

const PAGE: &str = "BENCHMARKS.md";
const PICTURES: &str = "integration/benchmarks";
const BEGIN: &str = "<!-- generated from here by ./integration/bench --publish -->";
const END: &str = "<!-- generated to here -->";

/// Where results go. Made before anything is measured, so that what is missing is missed early.
pub(crate) struct Publication {
    repository: PathBuf,
    /// What is written by hand before and after the generated part.
    around: (String, String),
    facts: Vec<(&'static str, String)>,
}

impl Publication {
    /// Looks at the page and the machine.
    pub(crate) fn new(repository: &Path) -> Result<Self, LabError> {
        let page = repository.join(PAGE);
        let text = fs::read_to_string(&page).map_err(LabError::io(format!("cannot read {}", page.display())))?;
        let around = split(&text).ok_or_else(|| {
            LabError::Other(format!(
                "{} has no place for results between {BEGIN} and {END}",
                page.display()
            ))
        })?;
        Ok(Self {
            repository: repository.to_owned(),
            around,
            facts: machine::facts()?,
        })
    }

    /// Writes page and pictures.
    pub(crate) fn write(&self, figures: &[&Figure], rows: &[Row]) -> Result<(), LabError> {
        let pictures = self.repository.join(PICTURES);
        fs::create_dir_all(&pictures).map_err(LabError::io(format!("cannot make {}", pictures.display())))?;
        let mut text = format!("{}{BEGIN}\n\n", self.around.0);
        for (name, fact) in &self.facts {
            let _ = writeln!(text, "- {name}: {fact}");
        }
        let all: Vec<&Row> = rows.iter().collect();
        let put = |text: &mut String, name: &str, svg: String| {
            let _ = write!(text, "\n![{name}]({PICTURES}/{name}.svg)\n");
            let path = pictures.join(format!("{name}.svg"));
            fs::write(&path, svg).map_err(LabError::io(format!("cannot write {}", path.display())))
        };
        put(
            &mut text,
            "goals",
            plot::goals("How near each figure is to its goal", &all),
        )?;
        for figure in figures {
            let own: Vec<&Row> = rows.iter().filter(|row| row.figure() == figure.name).collect();
            let _ = write!(
                text,
                "\n### {}\n\n{}. Floor: {}.\n\n{}",
                figure.name,
                sentence(figure.what),
                figure.floor,
                table(&own)
            );
            put(&mut text, figure.name, plot::beside(figure.name, &own))?;
            for (unit, lines) in growing(&own) {
                let name = format!(
                    "{}-growth-{}",
                    figure.name,
                    unit.replace(|c: char| !c.is_ascii_alphanumeric(), "")
                );
                put(
                    &mut text,
                    &name,
                    plot::growth(&format!("{}: how it grows", figure.name), unit, &lines),
                )?;
            }
        }
        let _ = write!(text, "\n{END}{}", self.around.1);
        let page = self.repository.join(PAGE);
        fs::write(&page, text).map_err(LabError::io(format!("cannot write {}", page.display())))
    }
}

/// What stands before the generated part and after it.
fn split(text: &str) -> Option<(String, String)> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some((before.to_owned(), after.to_owned()))
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters
        .next()
        .map(|first| first.to_uppercase().to_string())
        .unwrap_or_default();
    first + letters.as_str()
}

fn table(rows: &[&Row]) -> String {
    let mut text = "| name | ours | floor | unit | ratio | goal | met |\n|---|---|---|---|---|---|---|\n".to_owned();
    let spread = |value: f64, [lowest, highest]: [f64; 2]| {
        format!("{} ({} to {})", number(value), number(lowest), number(highest))
    };
    for row in rows {
        let floor = row
            .floor
            .zip(row.floor_spread)
            .map(|(floor, lowest)| spread(floor, lowest));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            row.name,
            spread(row.value, row.spread),
            floor.unwrap_or_default(),
            row.unit,
            row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            goal(row.goal),
            met(row)
        );
    }
    text
}

/// Rows whose names end in a number and are otherwise alike, where there are several: ours and the floor's as lines, by unit.
fn growing<'a>(rows: &[&'a Row]) -> BTreeMap<&'a str, Vec<Line>> {
    type Points = Vec<(f64, f64)>;
    let mut found: BTreeMap<(&str, &str), (Points, Points)> = BTreeMap::new();
    for row in rows {
        let Some((name, Ok(at))) = row.name.rsplit_once('/').map(|(name, at)| (name, at.parse::<f64>())) else {
            continue;
        };
        let (ours, floor) = found.entry((row.unit, name)).or_default();
        ours.push((at, row.value));
        floor.extend(row.floor.map(|value| (at, value)));
    }
    let mut lines: BTreeMap<&str, Vec<Line>> = BTreeMap::new();
    for ((unit, name), (ours, floor)) in found {
        if ours.len() < 2 {
            continue;
        }
        for (mut points, floor) in [(ours, false), (floor, true)] {
            points.retain(|point| point.1 > 0.0);
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let name = name.to_owned();
            lines.entry(unit).or_default().push(Line { name, floor, points });
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Goal;
    use crate::series::Series;

    fn row(name: &str, unit: &'static str, value: f64) -> Row {
        let one: Series = [value].into_iter().collect();
        Row::of(name, unit, &one, &one, Goal::AtMostTimes(1.25))
    }

    #[test]
    fn what_is_written_by_hand_stays_around_the_generated_part() {
        let text = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        assert_eq!(split(&text), Some(("before\n".to_owned(), "\nafter\n".to_owned())));
        assert_eq!(split("no place"), None);
    }

    #[test]
    fn rows_that_differ_in_their_last_number_are_a_line_and_its_floor() {
        let rows = [
            row("fleet/time/1000", "ms", 3.0),
            row("fleet/time/10", "ms", 1.0),
            row("fleet/alone/10", "ms", 1.0),
        ];
        let lines = growing(&rows.iter().collect::<Vec<_>>());
        let of_ms = &lines["ms"];
        assert_eq!(of_ms.len(), 2);
        assert_eq!(of_ms[0].points, [(10.0, 1.0), (1000.0, 3.0)]);
        assert!(!of_ms[0].floor && of_ms[1].floor);
    }

    #[test]
    fn a_missed_goal_is_shown_as_missed() {
        let ours: Series = [200.0].into_iter().collect();
        let floor: Series = [100.0].into_iter().collect();
        let row = Row::of("x", "ms", &ours, &floor, Goal::AtMostTimes(1.25));
        assert!(table(&[&row]).contains("MISSED"));
    }
}
