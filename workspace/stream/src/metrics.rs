//! What the consume loop counts, after it happened. Labels are topics, partitions, codes and end
//! states: never ids.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use crate::ledger::Volume;
use crate::position::Partition;

/// Records that were read, by topic.
pub const RECORDS_READ: &str = "orderflow_records_read_total";
/// Records whose end was committed, by topic; the dead letters among them are counted apart too.
pub const RECORDS_ENDED: &str = "orderflow_records_ended_total";
/// Records of a former assignment that were dropped, because their new owner answers for them.
pub const RECORDS_DROPPED: &str = "orderflow_records_dropped_total";
/// Dead letters, by source topic and error code.
pub const DEAD_LETTERS: &str = "orderflow_dead_letters_total";
/// Records that repeat an earlier one of the same key and ended without an effect, by topic and
/// content (`same`, `other`).
pub const REPEATS: &str = "orderflow_repeated_records_total";
/// Failed attempts that were tried again, by error code.
pub const RETRIES: &str = "orderflow_retries_total";
/// Records that were parked for a later attempt, by retry topic.
pub const PARKED: &str = "orderflow_parked_records_total";
/// How often the brake was pulled.
pub const BRAKES_PULLED: &str = "orderflow_brakes_pulled_total";
/// Outputs that were produced, by topic.
pub const OUTPUTS: &str = "orderflow_outputs_total";
/// Commits, by outcome (`committed`, `aborted`, `refused`, `indefinite`).
pub const COMMITS: &str = "orderflow_commits_total";
/// How long commits took, with the flush of the outputs before them.
pub const COMMIT_SECONDS: &str = "orderflow_commit_seconds";
/// Rebalances, by kind (`assign`, `revoke`, `lose`).
pub const REBALANCES: &str = "orderflow_rebalances_total";
/// Partitions that were paused because the budget was used up.
pub const PAUSES: &str = "orderflow_partition_pauses_total";
/// Records in work and not committed.
pub const IN_WORK_RECORDS: &str = "orderflow_in_work_records";
/// Bytes in work and not committed.
pub const IN_WORK_BYTES: &str = "orderflow_in_work_bytes";
/// Records between the frontier and the last stable offset: what stands behind an open transaction can not
/// be read yet.
pub const LAG_RECORDS: &str = "orderflow_lag_records";
/// Age of the oldest record that is read and not committed; 0 when nothing is.
pub const LAG_SECONDS: &str = "orderflow_lag_seconds";
/// Records of an output that readers of committed records do not see yet, by topic and partition:
/// the distance from the last stable offset to the end.
pub const HIDDEN_RECORDS: &str = "orderflow_hidden_records";
/// 1 while work waits for something that is away, by reason (`store`, `broker`, `restore`, `not_due`, `brake`,
/// `growth`, `hanging_transaction`).
pub const WAITING: &str = "orderflow_waiting_state";

/// All names, for the test that pins them and for the reference.
pub const NAMES: [&str; 19] = [
    RECORDS_READ,
    RECORDS_ENDED,
    RECORDS_DROPPED,
    DEAD_LETTERS,
    REPEATS,
    RETRIES,
    PARKED,
    BRAKES_PULLED,
    OUTPUTS,
    COMMITS,
    COMMIT_SECONDS,
    REBALANCES,
    PAUSES,
    IN_WORK_RECORDS,
    IN_WORK_BYTES,
    LAG_RECORDS,
    LAG_SECONDS,
    HIDDEN_RECORDS,
    WAITING,
];

/// The metrics of the pumps of one process; clones share them.
#[derive(Clone)]
pub struct StreamMetrics {
    pub(crate) records_read: IntCounterVec,
    pub(crate) records_ended: IntCounterVec,
    pub(crate) records_dropped: IntCounter,
    pub(crate) dead_letters: IntCounterVec,
    pub(crate) repeats: IntCounterVec,
    pub(crate) retries: IntCounterVec,
    pub(crate) parked: IntCounterVec,
    pub(crate) brakes_pulled: IntCounter,
    pub(crate) outputs: IntCounterVec,
    pub(crate) commits: IntCounterVec,
    pub(crate) commit_seconds: Histogram,
    pub(crate) rebalances: IntCounterVec,
    pub(crate) pauses: IntCounter,
    in_work_records: IntGauge,
    in_work_bytes: IntGauge,
    lag_records: IntGaugeVec,
    lag_seconds: GaugeVec,
    hidden_records: IntGaugeVec,
    waiting: IntGaugeVec,
    share: Arc<Share>,
}

/// What one pump has added to the gauges that all pumps of the process share.
#[derive(Default)]
struct Share {
    in_work_records: AtomicI64,
    in_work_bytes: AtomicI64,
    waiting: Mutex<BTreeSet<&'static str>>,
}

/// Makes `value` the part of one pump in a gauge.
fn set_part(gauge: &IntGauge, part: &AtomicI64, value: u64) {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    gauge.add(value - part.swap(value, Ordering::Relaxed));
}

impl StreamMetrics {
    /// The same metrics for one more pump.
    pub(crate) fn of_a_pump(&self) -> Self {
        Self {
            share: Arc::default(),
            ..self.clone()
        }
    }

    /// Registers everything.
    ///
    /// # Errors
    /// When a name is taken in this registry.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name, help, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok(vec)
        };
        let counter = |name, help| -> Result<IntCounter, prometheus::Error> {
            let one = IntCounter::new(name, help)?;
            registry.register(Box::new(one.clone()))?;
            Ok(one)
        };
        let gauge = |name, help| -> Result<IntGauge, prometheus::Error> {
            let one = IntGauge::new(name, help)?;
            registry.register(Box::new(one.clone()))?;
            Ok(one)
        };
        let buckets = vec![
            0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
        ];
        let commit_seconds = Histogram::with_opts(
            HistogramOpts::new(COMMIT_SECONDS, "Duration of commits with their flush").buckets(buckets),
        )?;
        registry.register(Box::new(commit_seconds.clone()))?;
        let lag_records = IntGaugeVec::new(
            Opts::new(LAG_RECORDS, "Records behind the last stable offset"),
            &["topic", "partition"],
        )?;
        registry.register(Box::new(lag_records.clone()))?;
        let lag_seconds = GaugeVec::new(
            Opts::new(LAG_SECONDS, "Age of the oldest record in work"),
            &["topic", "partition"],
        )?;
        registry.register(Box::new(lag_seconds.clone()))?;
        let hidden_records = IntGaugeVec::new(
            Opts::new(HIDDEN_RECORDS, "Records of outputs behind an open transaction"),
            &["topic", "partition"],
        )?;
        registry.register(Box::new(hidden_records.clone()))?;
        let waiting = IntGaugeVec::new(
            Opts::new(WAITING, "How many pumps wait for something that is away"),
            &["reason"],
        )?;
        registry.register(Box::new(waiting.clone()))?;
        Ok(Self {
            records_read: counters(RECORDS_READ, "Records read", &["topic"])?,
            records_ended: counters(RECORDS_ENDED, "Records whose end was committed", &["topic"])?,
            records_dropped: counter(
                RECORDS_DROPPED,
                "Records of a former assignment that were dropped",
            )?,
            dead_letters: counters(DEAD_LETTERS, "Dead letters", &["topic", "code"])?,
            repeats: counters(
                REPEATS,
                "Records that repeat an earlier one and had no effect",
                &["topic", "content"],
            )?,
            retries: counters(RETRIES, "Failed attempts that were tried again", &["code"])?,
            parked: counters(PARKED, "Records parked for a later attempt", &["topic"])?,
            brakes_pulled: counter(BRAKES_PULLED, "How often the brake was pulled")?,
            outputs: counters(OUTPUTS, "Outputs produced", &["topic"])?,
            commits: counters(COMMITS, "Commits", &["outcome"])?,
            commit_seconds,
            rebalances: counters(REBALANCES, "Rebalances", &["kind"])?,
            pauses: counter(PAUSES, "Partitions paused because the budget was used up")?,
            in_work_records: gauge(IN_WORK_RECORDS, "Records in work and not committed")?,
            in_work_bytes: gauge(IN_WORK_BYTES, "Bytes in work and not committed")?,
            lag_records,
            lag_seconds,
            hidden_records,
            waiting,
            share: Arc::default(),
        })
    }

    pub(crate) fn set_lag(&self, topic: &str, partition: Partition, records: i64, seconds: f64) {
        let partition = partition.0.to_string();
        self.lag_records
            .with_label_values(&[topic, &partition])
            .set(records);
        let gauge: Gauge = self.lag_seconds.with_label_values(&[topic, &partition]);
        gauge.set(seconds);
    }

    /// A revoked partition is somebody else's: its series would stay behind and lie.
    pub(crate) fn remove_lag(&self, topic: &str, partition: Partition) {
        let partition = partition.0.to_string();
        for removed in [
            self.lag_records.remove_label_values(&[topic, &partition]),
            self.lag_seconds.remove_label_values(&[topic, &partition]),
        ] {
            if let Err(error) = removed {
                tracing::trace!(%error, "no lag was recorded for this partition");
            }
        }
    }

    pub(crate) fn set_hidden(&self, topic: &str, partition: Partition, records: i64) {
        let partition = partition.0.to_string();
        self.hidden_records
            .with_label_values(&[topic, &partition])
            .set(records);
    }

    pub(crate) fn remove_hidden(&self, topic: &str, partition: Partition) {
        let partition = partition.0.to_string();
        if let Err(error) = self.hidden_records.remove_label_values(&[topic, &partition]) {
            tracing::trace!(%error, "nothing hidden was recorded for this partition");
        }
    }

    /// What is in work and not committed.
    pub(crate) fn set_in_work(&self, volume: Volume) {
        set_part(&self.in_work_records, &self.share.in_work_records, volume.records);
        set_part(&self.in_work_bytes, &self.share.in_work_bytes, volume.bytes);
    }

    pub(crate) fn set_waiting(&self, reason: &'static str, waits: bool) {
        let gauge = self.waiting.with_label_values(&[reason]);
        let mut waiting = self.share.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waits && waiting.insert(reason) {
            gauge.inc();
        } else if !waits && waiting.remove(reason) {
            gauge.dec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_names_is_what_is_registered() {
        let registry = Registry::new();
        let metrics = StreamMetrics::register(&registry).expect("fresh registry");
        for counters in [&metrics.records_read, &metrics.outputs] {
            counters.with_label_values(&["t"]).inc();
        }
        metrics.records_ended.with_label_values(&["t"]).inc();
        metrics.dead_letters.with_label_values(&["t", "code"]).inc();
        metrics.repeats.with_label_values(&["t", "same"]).inc();
        metrics.retries.with_label_values(&["code"]).inc();
        metrics.parked.with_label_values(&["t"]).inc();
        metrics.commits.with_label_values(&["committed"]).inc();
        metrics.rebalances.with_label_values(&["assign"]).inc();
        metrics.set_lag("t", Partition(0), 1, 1.0);
        metrics.set_hidden("t", Partition(0), 1);
        metrics.set_waiting("store", true);
        let mut registered: Vec<String> = registry
            .gather()
            .iter()
            .map(|family| family.name().to_owned())
            .collect();
        let mut listed: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
        registered.sort();
        listed.sort();
        assert_eq!(registered, listed);
    }

    #[test]
    fn a_gauge_of_the_process_is_the_sum_of_its_pumps() {
        let registry = Registry::new();
        let metrics = StreamMetrics::register(&registry).expect("fresh registry");
        let (one, other) = (metrics.of_a_pump(), metrics.of_a_pump());
        let volume = |records, bytes| Volume { records, bytes };
        one.set_in_work(volume(5, 50));
        other.set_in_work(volume(7, 70));
        one.set_in_work(volume(2, 20));
        assert_eq!(
            (metrics.in_work_records.get(), metrics.in_work_bytes.get()),
            (9, 90)
        );
        let waiting = || metrics.waiting.with_label_values(&["broker"]).get();
        one.set_waiting("broker", true);
        one.set_waiting("broker", true);
        other.set_waiting("broker", true);
        assert_eq!(waiting(), 2);
        one.set_waiting("broker", false);
        one.set_waiting("broker", false);
        assert_eq!(waiting(), 1, "the other one still waits");
    }

    #[test]
    fn a_revoked_partition_leaves_no_lag_behind() {
        let registry = Registry::new();
        let metrics = StreamMetrics::register(&registry).expect("fresh registry");
        metrics.set_lag("orders", Partition(3), 7, 1.5);
        metrics.remove_lag("orders", Partition(3));
        assert!(
            registry
                .gather()
                .iter()
                .all(|family| !family.name().contains("lag"))
        );
    }
}
