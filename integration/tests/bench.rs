//! The short form of the bench: every figure that is listed is produced, floors included. How fast anything is, is not looked at.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

const BENCH: &str = env!("CARGO_BIN_EXE_trunkline-bench");

#[test]
fn every_figure_that_is_listed_is_produced() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("rows.jsonl");
    let ran = Command::new(BENCH)
        .args(["--short", "--json"])
        .arg(&json)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    let text = std::fs::read_to_string(&json).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let wrong = problems(&listed(), &rows);
    assert!(wrong.is_empty(), "{}\n{said}", wrong.join("\n"));
}

/// The names that `--list` says.
fn listed() -> Vec<String> {
    let ran = Command::new(BENCH).arg("--list").output().unwrap();
    assert!(ran.status.success());
    let text = String::from_utf8(ran.stdout).unwrap();
    let names = text.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    names.map(str::to_owned).collect()
}

/// What is amiss with the rows: a figure without any, a figure that is compared with nothing, a value that is none.
fn problems(listed: &[String], rows: &[Value]) -> Vec<String> {
    let of = |row: &Value| {
        row["name"]
            .as_str()
            .and_then(|name| name.split('/').next())
            .map(str::to_owned)
    };
    let mut problems = Vec::new();
    for figure in listed {
        let own: Vec<&Value> = rows.iter().filter(|row| of(row).as_deref() == Some(figure)).collect();
        if own.is_empty() {
            problems.push(format!("{figure} is missing"));
        } else if own.iter().all(|row| row["floor"].is_null()) {
            problems.push(format!("{figure} has no floor"));
        }
    }
    for row in rows {
        // JSON knows no NaN and no infinity: they are written as null.
        let number = |key: &str| row[key].as_f64().filter(|number| number.is_finite());
        // Nothing is a value only where nothing else is allowed.
        let least = if row["goal"]["at_most"] == 0.0 {
            0.0
        } else {
            f64::MIN_POSITIVE
        };
        if number("value").is_none_or(|value| value < least) {
            problems.push(format!("{} has the value {}", row["name"], row["value"]));
        }
        let compared = row.get("floor_spread").is_some_and(|spread| !spread.is_null());
        if compared && number("floor").is_none_or(|floor| floor < least) {
            problems.push(format!("{} has the floor {}", row["name"], row["floor"]));
        }
        if of(row).is_none_or(|figure| !listed.contains(&figure)) {
            problems.push(format!("{} is of no figure that is listed", row["name"]));
        }
    }
    let names: BTreeSet<&str> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
    if names.len() != rows.len() {
        problems.push("two rows have one name".to_owned());
    }
    problems
}

fn row(name: &str, value: Value, floor: Value) -> Value {
    let spread = if floor.is_null() {
        Value::Null
    } else {
        serde_json::json!([1.0, 2.0])
    };
    serde_json::json!({"name": name, "value": value, "unit": "ms", "floor": floor, "floor_spread": spread})
}

#[test]
fn a_figure_that_is_missing_or_compared_with_nothing_is_found() {
    let listed = ["one".to_owned(), "two".to_owned()];
    let good = [
        row("one/p50", 1.0.into(), 2.0.into()),
        row("two", 1.0.into(), 2.0.into()),
    ];
    assert!(problems(&listed, &good).is_empty());
    assert_eq!(problems(&listed, &good[..1]), ["two is missing"]);
    let alone = [good[0].clone(), row("two", 1.0.into(), Value::Null)];
    assert_eq!(problems(&listed, &alone), ["two has no floor"]);
}

#[test]
fn a_value_that_is_no_number_is_found() {
    let listed = ["one".to_owned()];
    let mut none = row("one", f64::NAN.into(), 2.0.into());
    assert_eq!(problems(&listed, &[none.clone()]).len(), 1);
    none["value"] = 0.0.into();
    assert_eq!(
        problems(&listed, &[none.clone()]).len(),
        1,
        "nothing takes no time at all"
    );
    let mut floor = row("one", 1.0.into(), 2.0.into());
    floor["floor"] = f64::NAN.into();
    assert_eq!(
        problems(&listed, &[floor]).len(),
        2,
        "no floor, and what is there is none"
    );
}
