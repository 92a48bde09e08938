//! Rows as pictures: SVG, written as text.
//!
//! Axes are logarithmic, because one figure's values span powers of ten, so values are dots and never bars; 0 has no place on them and
//! is told in words.

use std::fmt::Write as _;

use crate::figure::Row;
use crate::report::{goal, number};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 250.0;
const RIGHT: f64 = 620.0;
const LINE: f64 = 26.0;
const OURS: &str = "#2563eb";
const FLOOR: &str = "#64748b";
const MET: &str = "#15803d";
const MISSED: &str = "#dc2626";
const INK: &str = "#1e293b";
const GRID: &str = "#e2e8f0";

/// Of a figure's rows: ours and the floor with what lies between their lowest and highest, a scale for each unit.
pub(crate) fn beside(title: &str, rows: &[&Row]) -> String {
    let mut picture = Picture::new(title);
    picture.legend(&[(OURS, true, "ours"), (FLOOR, false, "floor")]);
    let mut units: Vec<&str> = rows.iter().map(|row| row.unit).collect();
    units.dedup();
    for unit in units
        .iter()
        .enumerate()
        .filter(|(i, unit)| !units[..*i].contains(unit))
        .map(|(_, unit)| unit)
    {
        let block: Vec<&Row> = rows.iter().filter(|row| row.unit == *unit).copied().collect();
        let values = block
            .iter()
            .flat_map(|row| row.spread.into_iter().chain(row.floor_spread.into_iter().flatten()));
        let scale = Scale::over(values, LEFT, RIGHT);
        let top = picture.height;
        for row in &block {
            picture.dots(&scale, row);
        }
        picture.axis(&scale, top, unit);
    }
    picture.finish()
}

/// How a figure grows: lines over the number at the end of a row's name.
pub(crate) fn growth(title: &str, of: &str, lines: &[Line]) -> String {
    let mut picture = Picture::new(title);
    let across = Scale::over(
        lines.iter().flat_map(|line| line.points.iter().map(|point| point.0)),
        90.0,
        RIGHT,
    );
    let values = lines.iter().flat_map(|line| line.points.iter().map(|point| point.1));
    let (top, bottom) = (picture.height, picture.height + 320.0);
    let up = Scale::over(values, bottom, top + 10.0);
    picture.height = bottom;
    for tick in up.ticks() {
        let y = up.at(tick);
        picture.line((90.0, y), (RIGHT, y), GRID, 1.0);
        picture.text((82.0, y + 4.0), "end", INK, &number(tick));
    }
    picture.text((90.0, top - 4.0), "start", INK, of);
    for (i, line) in lines.iter().enumerate() {
        let colour = if line.floor {
            FLOOR
        } else {
            COLOURS[i / 2 % COLOURS.len()]
        };
        let dash = if line.floor { "4 4" } else { "none" };
        let path: Vec<String> = line
            .points
            .iter()
            .map(|(x, y)| format!("{:.1},{:.1}", across.at(*x), up.at(*y)))
            .collect();
        let _ = writeln!(
            picture.body,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>"#,
            path.join(" ")
        );
        for (x, y) in &line.points {
            picture.dot((across.at(*x), up.at(*y)), colour, !line.floor);
        }
        if let Some((x, y)) = line.points.last() {
            let _ = x;
            let text = if line.floor { "floor" } else { line.name.as_str() };
            picture.text((RIGHT + 14.0, up.at(*y) + 4.0), "start", colour, text);
        }
    }
    picture.axis(&across, top, "");
    picture.finish()
}

/// Of every row with a goal: how much of it is used. What is right of the line is missed.
pub(crate) fn goals(title: &str, rows: &[&Row]) -> String {
    let mut picture = Picture::new(title);
    picture.legend(&[(MET, true, "goal met"), (MISSED, true, "goal missed")]);
    let used: Vec<(&Row, f64)> = rows.iter().filter_map(|row| Some((*row, row.used()?))).collect();
    let scale = Scale::over(used.iter().map(|(_, used)| *used).chain([0.5, 2.0]), LEFT, RIGHT);
    let top = picture.height;
    for (row, used) in used {
        let colour = if row.met == Some(true) { MET } else { MISSED };
        let y = picture.row(&row.name);
        if used > 0.0 {
            picture.line((scale.at(1.0), y), (scale.at(used), y), colour, 2.0);
            picture.dot((scale.at(used), y), colour, true);
        }
        picture.text((RIGHT + 20.0, y + 4.0), "start", colour, &told(row));
    }
    let x = scale.at(1.0);
    picture.line((x, top), (x, picture.height), INK, 1.5);
    picture.axis(&scale, top, "times what its goal allows");
    picture.finish()
}

/// One line of [`growth`].
pub(crate) struct Line {
    /// What it is.
    pub(crate) name: String,
    /// Drawn as one.
    pub(crate) floor: bool,
    /// Number and value, ascending.
    pub(crate) points: Vec<(f64, f64)>,
}

const COLOURS: [&str; 6] = ["#2563eb", "#7c3aed", "#0891b2", "#c026d3", "#ca8a04", "#059669"];

/// `1.23 ms (floor 1.10), goal <= 1.25 x`.
fn told(row: &Row) -> String {
    let mut text = format!("{} {}", number(row.value), row.unit);
    if let Some(floor) = row.floor {
        let _ = write!(text, ", floor {}", number(floor));
    }
    if row.met.is_some() {
        let _ = write!(text, ", goal {}", goal(row.goal));
    }
    text
}

/// A logarithmic axis.
struct Scale {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// Over all values above 0, with some air.
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| value.is_finite() && *value > 0.0) {
            least = least.min(value);
            most = most.max(value);
        }
        if most == 0.0 {
            (least, most) = (1.0, 1.0);
        }
        Self {
            least: least / 1.3,
            most: most * 1.3,
            from,
            to,
        }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value / self.least).ln() / (self.most / self.least).ln();
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// 1, 2, 5, 10, ...; powers of ten alone when those are many.
    fn ticks(&self) -> Vec<f64> {
        let steps: &[f64] = if self.most / self.least > 300.0 {
            &[1.0]
        } else {
            &[1.0, 2.0, 5.0]
        };
        let mut ticks = Vec::new();
        let mut power = 10_f64.powf(self.least.log10().floor());
        while power <= self.most {
            ticks.extend(
                steps
                    .iter()
                    .map(|step| step * power)
                    .filter(|tick| (self.least..=self.most).contains(tick)),
            );
            power *= 10.0;
        }
        ticks
    }
}

/// Grows downwards.
struct Picture {
    title: String,
    body: String,
    height: f64,
}

impl Picture {
    fn new(title: &str) -> Self {
        Self {
            title: escape(title),
            body: String::new(),
            height: 62.0,
        }
    }

    fn legend(&mut self, entries: &[(&str, bool, &str)]) {
        let mut x = RIGHT + 20.0;
        for (colour, filled, text) in entries {
            self.dot((x, 26.0), colour, *filled);
            self.text((x + 10.0, 30.0), "start", INK, text);
            x += 100.0;
        }
    }

    /// Begins a row and says where its middle is.
    fn row(&mut self, name: &str) -> f64 {
        let y = self.height + LINE / 2.0;
        self.text((LEFT - 14.0, y + 4.0), "end", INK, name);
        self.height += LINE;
        y
    }

    fn dots(&mut self, scale: &Scale, row: &Row) {
        let y = self.row(&row.name);
        let sides = [
            (row.floor.zip(row.floor_spread), FLOOR, false),
            (Some((row.value, row.spread)), OURS, true),
        ];
        for (side, colour, filled) in sides {
            let Some((value, [lowest, highest])) = side else {
                continue;
            };
            if value > 0.0 {
                self.line((scale.at(lowest), y), (scale.at(highest), y), colour, 2.0);
                self.dot((scale.at(value), y), colour, filled);
            }
        }
        let colour = match row.met {
            Some(true) => MET,
            Some(false) => MISSED,
            None => INK,
        };
        self.text((RIGHT + 20.0, y + 4.0), "start", colour, &told(row));
    }

    /// Ticks below what was drawn since `top`.
    fn axis(&mut self, scale: &Scale, top: f64, unit: &str) {
        let bottom = self.height + 4.0;
        let mut grid = String::new();
        std::mem::swap(&mut grid, &mut self.body);
        for tick in scale.ticks() {
            let x = scale.at(tick);
            self.line((x, top), (x, bottom), GRID, 1.0);
            self.text((x, bottom + 15.0), "middle", INK, &number(tick));
        }
        // The grid lies under what stands on it.
        self.body += &grid;
        self.text((RIGHT + 20.0, bottom + 15.0), "start", INK, unit);
        self.height = bottom + 34.0;
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
        let _ = writeln!(
            self.body,
            r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="{colour}" stroke-width="{width}" stroke-linecap="round"/>"#,
            from.0, from.1, to.0, to.1
        );
    }

    fn dot(&mut self, (x, y): (f64, f64), colour: &str, filled: bool) {
        let fill = if filled { colour } else { "#ffffff" };
        let _ = writeln!(
            self.body,
            r#"<circle cx="{x:.1}" cy="{y:.1}" r="4.5" fill="{fill}" stroke="{colour}" stroke-width="2"/>"#
        );
    }

    fn text(&mut self, (x, y): (f64, f64), anchor: &str, colour: &str, text: &str) {
        let text = escape(text);
        let _ = writeln!(
            self.body,
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{colour}">{text}</text>"#
        );
    }

    fn finish(self) -> String {
        let Self { title, body, height } = self;
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0}" width="{WIDTH}" height="{height:.0}" font-family="system-ui, sans-serif" font-size="12" role="img" aria-label="{title}">
<rect width="100%" height="100%" rx="8" fill="#ffffff"/>
<text x="24" y="31" font-size="16" font-weight="600" fill="{INK}">{title}</text>
{body}</svg>
"##
        )
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Goal;
    use crate::series::Series;

    fn row(name: &str, value: f64, floor: f64) -> Row {
        let series = |value: f64| [value * 0.9, value, value * 1.2].into_iter().collect::<Series>();
        Row::of(name, "ms", &series(value), &series(floor), Goal::AtMostTimes(1.25))
    }

    #[test]
    fn what_is_more_is_further_right() {
        let scale = Scale::over([1.0, 10.0, 100.0].into_iter(), LEFT, RIGHT);
        assert!(scale.at(1.0) < scale.at(10.0) && scale.at(10.0) < scale.at(100.0));
        assert!(scale.at(1.0) >= LEFT && scale.at(100.0) <= RIGHT);
        assert!(scale.ticks().contains(&10.0));
    }

    #[test]
    fn nothing_and_zero_are_drawn_without_a_number_that_is_none() {
        let zero = row("a/b", 0.0, 0.0);
        for svg in [beside("t", &[&zero]), goals("t", &[&zero]), growth("t", "ms", &[])] {
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn text_does_not_end_an_element() {
        let svg = beside("a < b & \"c\"", &[&row("x<y", 1.0, 2.0)]);
        assert!(svg.contains("a &lt; b &amp; &quot;c&quot;") && svg.contains("x&lt;y"));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }
}
