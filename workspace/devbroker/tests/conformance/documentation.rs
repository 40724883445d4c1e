//! The table of scenarios in docs/devbroker.md, made from the scenarios and the recorded outcomes.

use std::fmt::Write;
use std::path::PathBuf;

use crate::engine::variable;
use crate::record;
use crate::stage::Scenario;

const BEGIN: &str = "<!-- conformance: made by the tests -->\n";
const END: &str = "<!-- conformance: end -->\n";
const RENEW: &str = "ORDERFLOW_RENEW=1 cargo test -p devbroker --test conformance documentation";

/// Compares the table in the documentation to the scenarios, or renews it.
pub fn check(families: &[(&str, &[Scenario])]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/devbroker.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page
        .split_once(BEGIN)
        .expect("the page has the mark of the beginning");
    let (_, after) = rest.split_once(END).expect("the page has the mark of the end");
    let current = format!("{before}{BEGIN}{}{END}{after}", section(families));
    if variable("ORDERFLOW_RENEW").is_some() {
        std::fs::write(&path, current).unwrap();
        return;
    }
    assert!(
        page == current,
        "the table of scenarios in docs/devbroker.md is stale, renew it with: {RENEW}"
    );
}

fn section(families: &[(&str, &[Scenario])]) -> String {
    let count: usize = families.iter().map(|(_, scenarios)| scenarios.len()).sum();
    let mut text = format!(
        "\n{count} scenarios. *Lines* is how much a client sees in each, all of it compared.\n\n\
         | scenario | what it shows | lines | devbroker |\n|---|---|---|---|\n"
    );
    let mut differences = String::new();
    for (family, scenarios) in families {
        writeln!(text, "| **{}** | | | |", words(family)).unwrap();
        let recorded = record::read(family);
        for scenario in *scenarios {
            let lines = recorded.get(scenario.name).map_or(0, Vec::len);
            let result = if scenario.difference.is_some() {
                "differs, see below"
            } else {
                "same"
            };
            let name = words(scenario.name);
            writeln!(text, "| {name} | {} | {lines} | {result} |", scenario.shows).unwrap();
            differences.push_str(&difference(scenario, recorded.get(scenario.name)));
        }
    }
    if differences.is_empty() {
        text.push_str("\nNo scenario ends otherwise on devbroker.\n\n");
    } else {
        write!(text, "\nWhere devbroker differs on purpose:\n\n{differences}\n").unwrap();
    }
    text
}

fn difference(scenario: &Scenario, recorded: Option<&Vec<String>>) -> String {
    let Some(difference) = scenario.difference else {
        return String::new();
    };
    let mut text = format!("- *{}*: {}.\n", words(scenario.name), difference.reason);
    for (kafka, ours) in difference.lines {
        let is_recorded = recorded.is_some_and(|lines| lines.iter().any(|line| line == kafka));
        assert!(
            is_recorded,
            "Kafka's `{kafka}` of {} is not what was recorded",
            scenario.name
        );
        writeln!(text, "  Kafka: `{kafka}`; devbroker: `{ours}`.").unwrap();
    }
    text
}

fn words(name: &str) -> String {
    name.replace('_', " ")
}
