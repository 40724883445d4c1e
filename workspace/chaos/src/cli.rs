//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::fault::Fault;
use crate::plan::EngineName;
use crate::run::Assignment;

/// Orders of a run of which nothing else is said, of a storm, and of a bounded run: some seconds of work.
const ORDERS: u64 = 20_000;
const STORM_ORDERS: u64 = 100_000;
const BOUNDED_ORDERS: u64 = 1_500;
const STORM_FAULTS: [Fault; 2] = [Fault::Kill, Fault::Terminate];
/// One of each kind: a crash, a zombie, and a gateway of which nobody knows what it did.
const BOUNDED_FAULTS: [Fault; 3] = [Fault::Kill, Fault::Freeze, Fault::GatewayLost];

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
    /// Different orders of each run [default: 20000, in a storm 100000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    pub orders: Option<u64>,
    /// Kills and terminates all processes of a worker at once, again and again: 16 restarts of each process
    /// in 100000 orders
    #[arg(long, conflicts_with = "only")]
    pub storm: bool,
    /// Two seeds with three faults and few orders, in less than a minute
    #[arg(long, conflicts_with_all = ["seeds", "from", "only", "orders", "storm"])]
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
        let assignment = |seed, orders, only: &[Fault]| Assignment {
            engine: self.engine,
            seed,
            orders,
            only: only.to_vec(),
        };
        if self.bounded {
            return [1, 2]
                .map(|seed| assignment(seed, BOUNDED_ORDERS, &BOUNDED_FAULTS))
                .to_vec();
        }
        let (usual, only) = if self.storm {
            (STORM_ORDERS, &STORM_FAULTS[..])
        } else {
            (ORDERS, &self.only[..])
        };
        let orders = self.orders.unwrap_or(usual);
        let seeds = self.from..self.from.saturating_add(self.seeds);
        seeds.map(|seed| assignment(seed, orders, only)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignments(arguments: &[&str]) -> Vec<Assignment> {
        let fixed = ["chaos", "--root", ".", "--orderflow", "o", "--work", "w"];
        Cli::try_parse_from(fixed.iter().chain(arguments))
            .unwrap()
            .assignments()
    }

    #[test]
    fn a_storm_is_what_its_command_for_a_replay_says() {
        let storm = assignments(&["--storm", "--engine", "kafka", "--from", "3"]);
        let [only] = storm.as_slice() else {
            panic!("{storm:?}")
        };
        let command = only.command();
        assert_eq!(
            command,
            "scripts/chaos --engine kafka --seeds 1 --from 3 --orders 100000 --only kill,terminate"
        );
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        assert_eq!(assignments(&words)[0].command(), command);
        assert_eq!(assignments(&["--storm", "--orders", "4000"])[0].orders, 4_000);
        assert_eq!(assignments(&["--seeds", "2"])[1].orders, 20_000);
    }

    #[test]
    fn a_bounded_run_has_two_seeds_and_three_faults() {
        let bounded = assignments(&["--bounded"]);
        assert_eq!(bounded.iter().map(|run| run.seed).collect::<Vec<_>>(), [1, 2]);
        assert!(bounded.iter().all(|run| run.only.len() == 3));
    }
}
