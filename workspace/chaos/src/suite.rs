//! The seeds of a command line, one after another.

use std::path::Path;

use anyhow::Context as _;

use crate::cli::Cli;
use crate::engine::{Places, clear_away};
use crate::record::Record;
use crate::report;
use crate::run::{Assignment, run};

/// Runs what the command line asks for; `false` when a run failed.
///
/// # Errors
/// What kept a run from being made at all.
pub async fn run_all(cli: &Cli) -> anyhow::Result<bool> {
    if cli.report {
        report::renew(&cli.root)?;
        return Ok(true);
    }
    let mut failed = Vec::new();
    for (number, assignment) in cli.assignments().into_iter().enumerate() {
        let work = cli.work.join(number.to_string());
        std::fs::create_dir(&work).with_context(|| work.display().to_string())?;
        let record = run_one(cli, &assignment, &work).await;
        if record.is_held() {
            std::fs::remove_dir_all(&work).with_context(|| work.display().to_string())?;
        } else {
            failed.push(assignment.command());
        }
        if cli.record {
            record.append_to(&report::runs_file(&cli.root))?;
        }
    }
    if cli.record {
        report::renew(&cli.root)?;
    }
    for command in &failed {
        println!("again: {command}");
    }
    Ok(failed.is_empty())
}

/// Runs one seed and says what came of it.
async fn run_one(cli: &Cli, assignment: &Assignment, work: &Path) -> Record {
    println!("{}", assignment.command());
    let places = Places {
        root: cli.root.clone(),
        orderflow: cli.orderflow.clone(),
        work: work.to_path_buf(),
    };
    match run(assignment, &places).await {
        Ok(outcome) => {
            let record = Record::held(&cli.commit, assignment, &outcome);
            println!("  held: {}", record.summary());
            record
        }
        Err(error) => {
            if let Err(problem) = clear_away(assignment.engine, &places).await {
                println!("  clearing away: {problem:#}");
            }
            println!("  FAILED: {error:#}\n  logs: {}", work.display());
            Record::failed(&cli.commit, assignment, &error)
        }
    }
}
