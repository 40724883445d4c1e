//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::plan::{EngineName, Fault};
use crate::run::Assignment;

/// Orders of a bounded run: some seconds of work.
const BOUNDED_ORDERS: u64 = 1_200;

/// Breaks the pipeline in every way there is, and sees whether it keeps its promises.
#[derive(Clone, Debug, Parser)]
#[command(name = "chaos", version)]
pub struct Cli {
    /// The broker
    #[arg(long, value_enum, default_value_t = EngineName::Devbroker)]
    pub engine: EngineName,
    /// How many seeds, one after another
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: u64,
    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub from: u64,
    /// Only these faults, separated by commas [default: all that the engine has]
    #[arg(long, value_name = "FAULT", value_enum, value_delimiter = ',')]
    pub only: Vec<Fault>,
    /// Different orders of each run
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    pub orders: u64,
    /// Two seeds and three single faults with few orders, in about a minute and a half
    #[arg(long, conflicts_with_all = ["seeds", "from", "only", "orders"])]
    pub bounded: bool,
    /// Add a line for each seed to docs/reliability.runs.jsonl, and renew docs/reliability.md
    #[arg(long)]
    pub record: bool,
    /// Renew docs/reliability.md and run nothing
    #[arg(long, conflicts_with_all = ["record", "bounded"])]
    pub report: bool,
    /// What the runs are recorded with
    #[arg(long, value_name = "COMMIT", hide = true, default_value = "unknown")]
    pub commit: String,
    /// The checkout
    #[arg(long, value_name = "DIR", hide = true)]
    pub root: PathBuf,
    /// The program `orderflow`
    #[arg(long, value_name = "FILE", hide = true)]
    pub orderflow: PathBuf,
    /// Where runs write; what a failed run leaves is kept
    #[arg(long, value_name = "DIR", hide = true)]
    pub work: PathBuf,
}

impl Cli {
    /// What is to be run, in order.
    #[must_use]
    pub fn assignments(&self) -> Vec<Assignment> {
        let assignment = |seed, orders, only| Assignment {
            engine: self.engine,
            seed,
            orders,
            only,
        };
        if !self.bounded {
            let seeds = self.from..self.from.saturating_add(self.seeds);
            return seeds
                .map(|seed| assignment(seed, self.orders, self.only.clone()))
                .collect();
        }
        let single = match self.engine {
            EngineName::Devbroker => [Fault::Kill, Fault::Freeze, Fault::LostAnswer],
            EngineName::Kafka => [Fault::Kill, Fault::Freeze, Fault::Broker],
        };
        let mixed = [1, 2].map(|seed| assignment(seed, BOUNDED_ORDERS, Vec::new()));
        let single = single.map(|fault| assignment(3, BOUNDED_ORDERS, vec![fault]));
        mixed.into_iter().chain(single).collect()
    }
}
