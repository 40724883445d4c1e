//! What is kept of a run: one line of JSON.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fault::Fault;
use crate::plan::EngineName;
use crate::run::{Assignment, Outcome};

/// A failure is told in so many characters; the rest is in the logs.
const REASON_MAX: usize = 300;

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What was run, as Git names it.
    pub commit: String,
    /// On which broker.
    pub engine: EngineName,
    /// The seed.
    pub seed: u64,
    /// Only these faults; none means all.
    pub only: Vec<Fault>,
    /// Different orders.
    pub orders: u64,
    /// How often each fault hit.
    pub faults: BTreeMap<Fault, u64>,
    /// How many processes ended in which way.
    pub ends: BTreeMap<String, u64>,
    /// What `orderflow verify` counted.
    pub counts: BTreeMap<String, u64>,
    /// From start to verdict.
    pub seconds: u64,
    /// `held`, or what went wrong.
    pub verdict: String,
}

impl Record {
    /// Of a run in which everything held.
    #[must_use]
    pub fn held(commit: &str, assignment: &Assignment, outcome: &Outcome) -> Self {
        let counts = outcome.verdict.get("counts").and_then(Value::as_object);
        let counts = counts.into_iter().flatten();
        Self {
            faults: outcome.faults.clone(),
            ends: outcome
                .ends
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
            counts: counts
                .filter_map(|(name, count)| Some((name.clone(), count.as_u64().filter(|count| *count > 0)?)))
                .collect(),
            seconds: outcome.seconds,
            verdict: "held".to_owned(),
            ..Self::of(commit, assignment)
        }
    }

    /// Of a run that failed.
    #[must_use]
    pub fn failed(commit: &str, assignment: &Assignment, error: &anyhow::Error) -> Self {
        let reason = format!("{error:#}").replace('\n', " ");
        Self {
            verdict: format!("failed: {}", reason.chars().take(REASON_MAX).collect::<String>()),
            ..Self::of(commit, assignment)
        }
    }

    fn of(commit: &str, assignment: &Assignment) -> Self {
        Self {
            commit: commit.to_owned(),
            engine: assignment.engine,
            seed: assignment.seed,
            only: assignment.only.clone(),
            orders: assignment.orders,
            faults: BTreeMap::new(),
            ends: BTreeMap::new(),
            counts: BTreeMap::new(),
            seconds: 0,
            verdict: String::new(),
        }
    }

    /// Whether everything held.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.verdict == "held"
    }

    /// The run in a line.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "{} s, faults: {}; processes: {}; {}",
            self.seconds,
            listed(&self.faults),
            listed(&self.ends),
            listed(&self.counts)
        )
    }

    /// Adds the line to a file.
    ///
    /// # Errors
    /// The file can not be written.
    pub fn append_to(&self, path: &Path) -> anyhow::Result<()> {
        let line = serde_json::to_string(self)?;
        let opened = std::fs::File::options().create(true).append(true).open(path);
        let written = opened.and_then(|mut file| writeln!(file, "{line}"));
        written.with_context(|| path.display().to_string())
    }

    /// All records of a file; none where there is no file.
    ///
    /// # Errors
    /// A line that is no record.
    pub fn read_all(path: &Path) -> anyhow::Result<Vec<Self>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        text.lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("{}: `{line}`", path.display())))
            .collect()
    }
}

/// `kill 4, freeze 1`.
pub(crate) fn listed<K: std::fmt::Display>(counts: &BTreeMap<K, u64>) -> String {
    let each: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if each.is_empty() {
        "none".to_owned()
    } else {
        each.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn assignment() -> Assignment {
        Assignment {
            engine: EngineName::Kafka,
            seed: 7,
            orders: 2_000,
            only: vec![Fault::LostAnswer],
        }
    }

    #[test]
    fn records_come_back_from_their_file_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs.jsonl");
        assert_eq!(Record::read_all(&path).unwrap(), []);
        let outcome = Outcome {
            faults: BTreeMap::from([(Fault::Kill, 4)]),
            ends: BTreeMap::from([("killed", 4)]),
            verdict: json!({"verdict": "held", "counts": {"paid": 1900, "failed": 0}}),
            seconds: 31,
        };
        let held = Record::held("abc", &assignment(), &outcome);
        let failed = Record::failed("abc", &assignment(), &anyhow::anyhow!("a group\nstands still"));
        held.append_to(&path).unwrap();
        failed.append_to(&path).unwrap();
        assert_eq!(Record::read_all(&path).unwrap(), [held.clone(), failed.clone()]);
        assert!(held.is_held() && !failed.is_held());
        assert_eq!(failed.verdict, "failed: a group stands still");
        assert_eq!(
            held.summary(),
            "31 s, faults: kill 4; processes: killed 4; paid 1900"
        );
    }
}
