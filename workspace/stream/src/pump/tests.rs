//! What happens after a unit of work failed, with a source that plays a script and a producer that
//! reaches nobody.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use prometheus::Registry;
use service::{Process, ServiceInfo};

use super::*;
use crate::failure::Failure;
use crate::ffi::GroupOffsets;
use crate::handler::{Handler, OutputTopic, Outputs};
use crate::lookout::LookoutConfig;
use crate::parking::{Delays, RetryPlan};
use crate::position::{Offset, Partition, StartAt, TopicIndex};
use crate::record::{NoHeaders, Record};
use crate::settings::KafkaSettings;
use crate::source::{Entry, GroupOffset, RebalanceKind};
use crate::stage::immediate::Immediate;
use std::ffi::CStr;

const INFO: ServiceInfo = ServiceInfo {
    name: "test",
    version: "0",
    admin_port: 0,
};

fn at(partition: i32) -> TopicPartition {
    TopicPartition {
        topic: TopicIndex(0),
        partition: Partition(partition),
    }
}

fn offset(next: i64) -> GroupOffset {
    GroupOffset {
        next: Offset(next),
        note: String::new(),
    }
}

#[derive(Default)]
struct Seen {
    seeks: Vec<Vec<(TopicPartition, StartAt)>>,
    commits: Vec<(TopicPartition, Offset)>,
}

/// Gives its batches one after the other, then nothing.
#[derive(Default)]
struct Script {
    batches: Vec<Vec<(i32, i64)>>,
    committed: HashMap<TopicPartition, Option<GroupOffset>>,
    seen: Arc<Mutex<Seen>>,
}

impl Source for Script {
    type Batch = Vec<(i32, i64)>;

    fn subscribe(&mut self, _: usize) -> Result<(), StreamError> {
        Ok(())
    }

    fn read(&mut self, _: Duration, _: usize) -> Self::Batch {
        if self.batches.is_empty() {
            Vec::new()
        } else {
            self.batches.remove(0)
        }
    }

    fn entries<'a>(&'a self, batch: &'a Self::Batch) -> impl Iterator<Item = Entry<'a>> {
        batch.iter().map(|(partition, offset)| match offset {
            ..0 => Entry::Error(
                Some(at(*partition)),
                StreamError::Client {
                    what: "fetching".to_owned(),
                    cause: "moved".to_owned(),
                    retriable: true,
                },
            ),
            _ => Entry::Record(Record {
                at: at(*partition),
                offset: Offset(*offset),
                record_time_ms: 0,
                key: Some(b"k"),
                value: Some(b"v"),
                headers: &NoHeaders,
            }),
        })
    }

    fn take_rebalance(&mut self) -> Option<(RebalanceKind, Vec<TopicPartition>)> {
        None
    }

    fn committed(
        &self,
        _: &[TopicPartition],
        _: Duration,
    ) -> Result<HashMap<TopicPartition, Option<GroupOffset>>, StreamError> {
        Ok(self.committed.clone())
    }

    fn assign(&mut self, _: &[(TopicPartition, StartAt)]) -> Result<(), StreamError> {
        Ok(())
    }

    fn unassign(&mut self, _: &[TopicPartition]) -> Result<(), StreamError> {
        Ok(())
    }

    fn commit(&self, offsets: &[(TopicPartition, Offset)], _: &CStr, _: Duration) -> Result<(), StreamError> {
        self.seen
            .lock()
            .expect("not poisoned")
            .commits
            .extend_from_slice(offsets);
        Ok(())
    }

    fn group_offsets(&self, _: &[(TopicPartition, Offset)]) -> Result<GroupOffsets, StreamError> {
        Err(StreamError::Halted {
            message: "a script has no group".to_owned(),
        })
    }

    fn pause(&mut self, _: &[TopicPartition]) -> Result<(), StreamError> {
        Ok(())
    }

    fn resume(&mut self, _: &[TopicPartition]) -> Result<(), StreamError> {
        Ok(())
    }

    fn seek(&mut self, starts: &[(TopicPartition, StartAt)], _: Duration) -> Result<(), StreamError> {
        let mut starts = starts.to_vec();
        starts.sort_by_key(|(at, _)| *at);
        self.seen.lock().expect("not poisoned").seeks.push(starts);
        Ok(())
    }

    fn positions(&self, _: &[TopicPartition]) -> Result<Vec<(TopicPartition, Offset)>, StreamError> {
        Ok(Vec::new())
    }

    fn is_waiting(&self, _: TopicPartition) -> bool {
        false
    }

    fn take_complaint(&mut self) -> Option<StreamError> {
        None
    }

    fn high_watermark(&self, _: TopicPartition) -> Option<Offset> {
        None
    }

    fn close(self, _: Duration) -> Result<(), StreamError> {
        Ok(())
    }
}

/// Sends every record on; in the middle of a batch it can find its unit of work given up.
struct Forward;

impl Handler for Forward {
    fn handle(&mut self, _: &Record<'_>, outputs: &mut dyn Outputs) -> Result<(), Failure> {
        outputs.send(OutputTopic(0), b"k", b"v");
        Ok(())
    }
}

/// A pump over partitions 0, 1 and 2, of which the group has committed offset 10 in 0 and 20 in 1.
fn pump(batches: Vec<Vec<(i32, i64)>>) -> (Pump<Script, Immediate<Forward>>, Arc<Mutex<Seen>>) {
    pump_with(batches, RetryPlan::none())
}

fn pump_with(
    batches: Vec<Vec<(i32, i64)>>,
    plan: RetryPlan,
) -> (Pump<Script, Immediate<Forward>>, Arc<Mutex<Seen>>) {
    let consumer = crate::ffi::Consumer::open(
        "127.0.0.1:1",
        "g",
        &[
            ("group.id".to_owned(), "g".to_owned()),
            ("bootstrap.servers".to_owned(), "127.0.0.1:1".to_owned()),
        ],
        &["in".to_owned()],
    )
    .expect("a consumer for its waker");
    let seen = Arc::new(Mutex::new(Seen::default()));
    let script = Script {
        batches,
        committed: HashMap::from([
            (at(0), Some(offset(10))),
            (at(1), Some(offset(20))),
            (at(2), None),
        ]),
        seen: Arc::clone(&seen),
    };
    let metrics = StreamMetrics::register(&Registry::new()).expect("fresh registry");
    let producer_properties = [
        ("bootstrap.servers", "127.0.0.1:1"),
        ("message.timeout.ms", "200"),
        ("enable.idempotence", "false"),
    ];
    let unit = UnitConfig {
        transactional_id: None,
        brokers: "127.0.0.1:1".to_owned(),
        producer_properties: producer_properties
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .to_vec(),
        group: "g".to_owned(),
        inputs: vec!["in".to_owned()],
        plan,
        outputs: vec!["out".to_owned()],
        dead_letter_topics: vec!["in.g.dlq".to_owned()],
        metrics: metrics.clone(),
    };
    let lookout = LookoutConfig {
        client_properties: Vec::new(),
        sources: Vec::new(),
        inputs: Vec::new(),
        metrics: metrics.clone(),
    };
    let lookout = Lookout::new(lookout, BTreeMap::new());
    let process = Process::detached(INFO);
    let parts = PumpParts {
        settings: StreamSettings::default(),
        unit: Arc::new(unit),
        wake: Arc::new(Wake::new(consumer.waker())),
        metrics,
        repeats: Repeats::Count,
        restorer: None,
        number: 0,
        takeover: None,
        lookout,
        heartbeat: process.health.task("pump", Duration::from_secs(30)),
        kafka: KafkaSettings::default(),
        events: "events".to_owned(),
        sign: BrakeSign::new(process.health.clone()),
    };
    let mut pump = Pump::new(script, Immediate::new(Forward), parts);
    pump.renew().expect("a producer that need not reach anybody");
    pump.take_partitions(&[at(0), at(1), at(2)]).expect("assigned");
    (pump, seen)
}

#[test]
fn the_offsets_of_idle_retry_topics_are_committed_again_and_no_others() {
    let retry = |partition| TopicPartition {
        topic: TopicIndex(1),
        ..at(partition)
    };
    let (mut pump, seen) = pump_with(
        Vec::new(),
        RetryPlan::new(1, &Delays::parse("5s").expect("a delay")),
    );
    pump.source.committed.insert(retry(0), Some(offset(7)));
    pump.take_partitions(&[retry(0), retry(1)]).expect("assigned");
    pump.settle().expect("nothing to commit");
    assert_eq!(
        seen.lock().expect("not poisoned").commits,
        [],
        "they were just read"
    );
    pump.idle_offsets.0 = Duration::ZERO;
    pump.settle().expect("committed again");
    // Nobody knows an offset of the other one, and sources keep theirs by being subscribed to.
    assert_eq!(
        seen.lock().expect("not poisoned").commits,
        [(retry(0), Offset(7))]
    );
}

#[test]
fn after_a_failed_unit_every_partition_is_read_again_from_where_it_was_committed() {
    // Partition 2 has no record in work, and the client may have read it all the same.
    let (mut pump, seen) = pump(vec![vec![(0, 10), (0, 11), (1, 20)]]);
    pump.turn().expect("a turn");
    pump.settle().expect("the failure costs the unit, not the pump");
    pump.turn().expect("recovers");
    let seen = seen.lock().expect("not poisoned");
    assert_eq!(
        seen.commits,
        [],
        "nothing is committed whose outputs did not arrive"
    );
    let wanted = vec![
        (at(0), StartAt::Offset(Offset(10))),
        (at(1), StartAt::Offset(Offset(20))),
        (at(2), StartAt::Earliest),
    ];
    assert_eq!(seen.seeks, [wanted]);
    assert_eq!(pump.ledger.outstanding(), Volume::default());
    assert_eq!(pump.budget.used(), Volume::default());
}

#[test]
fn what_was_read_before_a_failed_unit_is_not_ended_by_what_comes_after_it() {
    let (mut pump, seen) = pump(vec![vec![(0, 10)], vec![(0, 10), (0, 11)]]);
    pump.turn().expect("a turn");
    let old_epoch = pump.ledger.charge(at(0), Offset(12), 1, 0).expect("charged");
    pump.settle().expect("fails");
    pump.turn().expect("recovers");
    assert!(
        !pump.ledger.is_current(&old_epoch),
        "a ticket of the failed life is void"
    );
    pump.turn().expect("the records come again");
    assert_eq!(pump.ledger.outstanding().records, 2);
    assert_eq!(seen.lock().expect("not poisoned").commits, []);
}

#[test]
fn an_error_inside_of_a_batch_puts_the_client_back_to_where_we_stand() {
    let (mut pump, seen) = pump(vec![vec![(0, 10), (0, -1), (1, -1), (2, -1)]]);
    pump.turn().expect("a passing error does not end the pump");
    let wanted = vec![
        (at(0), StartAt::Offset(Offset(11))),
        (at(1), StartAt::Offset(Offset(20))),
        (at(2), StartAt::Earliest),
    ];
    assert_eq!(seen.lock().expect("not poisoned").seeks, [wanted]);
}
