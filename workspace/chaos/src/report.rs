//! The page docs/reliability.md: its tables of faults, runs and mutants are made here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::fault::Fault;
use crate::plan::EngineName;
use crate::record::{Record, listed};

const MADE: &str = "made by scripts/chaos --report";

/// The records of the runs.
#[must_use]
pub fn runs_file(root: &Path) -> PathBuf {
    root.join("docs/reliability.runs.jsonl")
}

fn page_file(root: &Path) -> PathBuf {
    root.join("docs/reliability.md")
}

/// Writes the tables of the page anew.
///
/// # Errors
/// Files that can not be read or written, or a page without its marks.
pub fn renew(root: &Path) -> anyhow::Result<()> {
    let path = page_file(root);
    std::fs::write(&path, current(root)?).with_context(|| path.display().to_string())
}

/// The page as it should be.
///
/// # Errors
/// Files that can not be read, or a page without its marks.
pub fn current(root: &Path) -> anyhow::Result<String> {
    let path = page_file(root);
    let page = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let records = Record::read_all(&runs_file(root))?;
    let mutants = mutants(&root.join("scripts/chaos.d"))?;
    let page = replaced(&page, "faults", &faults_table(&records))?;
    let page = replaced(&page, "runs", &runs_table(&records))?;
    replaced(&page, "mutants", &mutants_table(&mutants))
}

/// Puts a section between its marks.
fn replaced(page: &str, name: &str, section: &str) -> anyhow::Result<String> {
    let (begin, end) = (
        format!("<!-- {name}: {MADE} -->\n"),
        format!("<!-- {name}: end -->"),
    );
    let split = page
        .split_once(&begin)
        .and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    let Some((before, after)) = split else {
        bail!("the page has no marks of the section `{name}`");
    };
    Ok(format!("{before}{begin}\n{section}\n{end}{after}"))
}

/// Every fault, and how often it was done.
fn faults_table(records: &[Record]) -> String {
    let times = |engine: EngineName, fault: Fault| -> String {
        if !Fault::of(engine).contains(&fault) {
            return "-".to_owned();
        }
        let of_engine = records.iter().filter(|record| record.engine == engine);
        let times: u64 = of_engine.filter_map(|record| record.faults.get(&fault)).sum();
        times.to_string()
    };
    let mut table =
        "| fault | what is done | times on devbroker | times on Kafka |\n|---|---|---|---|\n".to_owned();
    for fault in Fault::of(EngineName::Devbroker) {
        let row = format!(
            "| `{fault}` | {} | {} | {} |\n",
            fault.meaning(),
            times(EngineName::Devbroker, fault),
            times(EngineName::Kafka, fault)
        );
        table.push_str(&row);
    }
    table
}

/// Every run, and the sums of those that held.
fn runs_table(records: &[Record]) -> String {
    let mut text = String::new();
    for engine in [EngineName::Devbroker, EngineName::Kafka] {
        let of_engine: Vec<&Record> = records.iter().filter(|record| record.engine == engine).collect();
        let held: Vec<&&Record> = of_engine.iter().filter(|record| record.is_held()).collect();
        let orders: u64 = held.iter().map(|record| record.orders).sum();
        let ends: u64 = held.iter().flat_map(|record| record.ends.values()).sum();
        // Writing to a string does not fail.
        let _written = writeln!(
            text,
            "- {engine}: {} runs, {} held; in these {orders} orders, and {ends} processes of workers that ended.",
            of_engine.len(),
            held.len()
        );
    }
    text.push_str(
        "\n| engine | seed | commit | orders | faults | ends of processes | seconds | verdict |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for record in records {
        let _written = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            record.engine,
            record.seed,
            record.commit,
            record.orders,
            listed(&record.faults),
            listed(&record.ends),
            record.seconds,
            record.verdict.replace('|', "/")
        );
    }
    text
}

/// A mutant: what its patch removes, the check that notices, and what the check says then.
#[derive(Debug, PartialEq, Eq)]
struct Mutant {
    removes: String,
    check: String,
    says: String,
}

fn mutants(folder: &Path) -> anyhow::Result<BTreeMap<String, Mutant>> {
    let mut found = BTreeMap::new();
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "patch") {
            let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let name = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let mutant = mutant(&text).with_context(|| path.display().to_string())?;
            found.insert(name, mutant);
        }
    }
    Ok(found)
}

fn mutant(patch: &str) -> anyhow::Result<Mutant> {
    let field = |name: &str| {
        let found = patch.lines().find_map(|line| line.strip_prefix(name));
        found
            .map(|text| text.trim().to_owned())
            .with_context(|| format!("no line `{name}`"))
    };
    Ok(Mutant {
        removes: field("Removes:")?,
        check: field("Check:")?,
        says: field("Says:")?,
    })
}

fn mutants_table(mutants: &BTreeMap<String, Mutant>) -> String {
    let mut table =
        "| mutant | the defence that it removes | what notices it | and says |\n|---|---|---|---|\n"
            .to_owned();
    for (name, Mutant { removes, check, says }) in mutants {
        let row = format!(
            "| `{name}` | {removes} | `{check}` | `{}` |\n",
            says.replace('|', "\\|")
        );
        table.push_str(&row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    #[test]
    fn the_page_is_what_records_and_patches_say() {
        let page = std::fs::read_to_string(page_file(&root())).unwrap();
        assert!(
            page == current(&root()).unwrap(),
            "docs/reliability.md is stale, renew it with: scripts/chaos --report"
        );
    }

    #[test]
    fn a_section_takes_the_place_of_the_one_before() {
        let page = format!("a\n<!-- runs: {MADE} -->\nold\n<!-- runs: end -->\nb\n");
        let once = replaced(&page, "runs", "new\n").unwrap();
        assert_eq!(
            once,
            format!("a\n<!-- runs: {MADE} -->\n\nnew\n\n<!-- runs: end -->\nb\n")
        );
        assert_eq!(replaced(&once, "runs", "new\n").unwrap(), once);
        assert!(replaced(&page, "faults", "").is_err());
    }

    #[test]
    fn a_patch_says_what_it_removes_and_what_notices_it() {
        let text = "Removes: the guard\nCheck: cargo test --test x\nSays: doubled\n\n--- a/x\n";
        let wanted = Mutant {
            removes: "the guard".to_owned(),
            check: "cargo test --test x".to_owned(),
            says: "doubled".to_owned(),
        };
        assert_eq!(mutant(text).unwrap(), wanted);
        assert!(mutant("Removes: the guard\nCheck: cargo test --test x\n").is_err());
    }
}
