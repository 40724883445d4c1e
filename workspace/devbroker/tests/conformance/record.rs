//! Outcomes: run, recorded on real Kafka, compared on both engines.
//!
//! A file per family. Of each scenario: a line `== name`, its outcome, an empty line.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::engine::{Engine, variable};
use crate::stage::{Scenario, Stage};

/// The longest that any scenario may take.
const TIME_LIMIT: Duration = Duration::from_secs(60);
const HEADING: &str = "== ";

pub type Outcomes = BTreeMap<String, Vec<String>>;

/// Runs the scenarios of a family, all at once, and compares their outcomes to the recorded ones, or
/// records them.
pub async fn compare(family: &str, scenarios: &'static [Scenario]) {
    let filter = variable("ORDERFLOW_SCENARIO").unwrap_or_default();
    let chosen: Vec<&Scenario> = scenarios
        .iter()
        .filter(|scenario| scenario.name.contains(&filter))
        .collect();
    let engine = Engine::start().await;
    let records = variable("ORDERFLOW_RECORD").is_some();
    assert!(
        engine.is_kafka() || !records,
        "only a real Kafka's outcomes are recorded"
    );
    let outcomes = run(&engine.address(), &chosen).await;
    if records {
        return write(family, scenarios, outcomes);
    }
    let recorded = read(family);
    let mut complaints = String::new();
    for scenario in chosen {
        let expected = recorded.get(scenario.name).map(|lines| {
            if engine.is_kafka() {
                lines.clone()
            } else {
                on_devbroker(scenario, lines)
            }
        });
        let expected = expected.unwrap_or_else(|| vec!["(not recorded)".to_owned()]);
        let seen = &outcomes[scenario.name];
        if *seen != expected {
            writeln!(complaints, "\n{}: {}", scenario.name, scenario.shows).unwrap();
            complaints.push_str(&differences(&expected, seen));
        }
    }
    assert!(
        complaints.is_empty(),
        "outcomes are not as recorded:\n{complaints}"
    );
}

async fn run(address: &str, scenarios: &[&'static Scenario]) -> Outcomes {
    let mut running = JoinSet::new();
    for scenario in scenarios.iter().copied() {
        let mut stage = Stage::new(address);
        let lines = stage.lines();
        running.spawn(async move {
            let began = Instant::now();
            // A task of its own: one that fails must not take the others with it.
            let scene = tokio::spawn(async move { (scenario.run)(&mut stage).await });
            let failure = match tokio::time::timeout(TIME_LIMIT, scene).await {
                Ok(Ok(())) => None,
                Ok(Err(failure)) => Some(format!("(failed: {failure})")),
                Err(_) => Some(format!("(not done within {TIME_LIMIT:?})")),
            };
            eprintln!("{:>7.3} s {}", began.elapsed().as_secs_f64(), scenario.name);
            let mut outcome = lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
            outcome.extend(failure);
            (scenario.name.to_owned(), outcome)
        });
    }
    running.join_all().await.into_iter().collect()
}

/// The recorded lines with the known differences in place.
fn on_devbroker(scenario: &Scenario, lines: &[String]) -> Vec<String> {
    let replaced = |line: &String| {
        let differences = scenario.difference.iter().flat_map(|difference| difference.lines);
        let mut same = differences.filter(|(kafka, _)| kafka == line);
        same.next()
            .map_or_else(|| line.clone(), |(_, ours)| (*ours).to_owned())
    };
    lines.iter().map(replaced).collect()
}

/// The lines that are only expected, or only seen, with the place of each.
fn differences(expected: &[String], seen: &[String]) -> String {
    let mut text = String::new();
    for index in 0..expected.len().max(seen.len()) {
        let (expected, seen) = (expected.get(index), seen.get(index));
        if expected != seen {
            for (sign, line) in [("recorded", expected), ("seen    ", seen)] {
                let line = line.map_or("(no line)", String::as_str);
                writeln!(text, "  {sign} {line}").unwrap();
            }
        }
    }
    text
}

fn path(family: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/conformance/recorded")
        .join(format!("{family}.txt"))
}

/// The recorded outcomes of a family.
pub fn read(family: &str) -> Outcomes {
    let text = std::fs::read_to_string(path(family)).unwrap_or_default();
    let mut outcomes = Outcomes::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix(HEADING) {
            name = heading.to_owned();
            outcomes.entry(name.clone()).or_default();
        } else if !line.is_empty() {
            outcomes.entry(name.clone()).or_default().push(line.to_owned());
        }
    }
    outcomes
}

/// Writes the outcomes, in the order of the scenarios; those that did not run stay as they are.
fn write(family: &str, scenarios: &[Scenario], outcomes: Outcomes) {
    let failed: Vec<&String> = outcomes
        .iter()
        .filter(|(_, lines)| lines.iter().any(|line| line.starts_with('(')))
        .map(|(name, _)| name)
        .collect();
    assert!(
        failed.is_empty(),
        "not recorded, because these failed: {failed:?}"
    );
    let mut all = read(family);
    all.extend(outcomes);
    let mut text = String::new();
    for scenario in scenarios {
        let lines = all.get(scenario.name).map(|lines| lines.join("\n"));
        writeln!(
            text,
            "{HEADING}{}\n{}\n",
            scenario.name,
            lines.unwrap_or_default()
        )
        .unwrap();
    }
    std::fs::write(path(family), text.trim_end().to_owned() + "\n").unwrap();
}
