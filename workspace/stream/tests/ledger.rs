//! The ledger against a slow and obvious model, over random schedules of read, end, publish, commit,
//! rewind, revoke and reassign.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use stream::ledger::{ChargeError, Ledger, Ticket, Volume};
use stream::position::{Offset, Partition, StartAt, TopicIndex, TopicPartition};

const PARTITIONS: i32 = 3;

fn at(partition: i32) -> TopicPartition {
    TopicPartition {
        topic: TopicIndex(0),
        partition: Partition(partition),
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Reads the next record; offsets may have gaps, as in a transactional topic.
    Read {
        partition: i32,
        gap: i64,
    },
    /// Ends one of the open records, or uses an old ticket once more.
    End {
        pick: usize,
    },
    /// Takes the endings of records with even offsets back.
    Reopen {
        partition: i32,
    },
    Publish,
    Commit,
    Unpublish,
    ReachEnd {
        partition: i32,
        beyond: i64,
    },
    Rewind {
        partition: i32,
    },
    Revoke {
        partition: i32,
    },
    Assign {
        partition: i32,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let partition = 0..PARTITIONS;
    prop_oneof![
        8 => (partition.clone(), 0..3_i64).prop_map(|(partition, gap)| Step::Read { partition, gap }),
        8 => any::<usize>().prop_map(|pick| Step::End { pick }),
        4 => Just(Step::Publish),
        3 => Just(Step::Commit),
        1 => Just(Step::Unpublish),
        1 => partition.clone().prop_map(|partition| Step::Reopen { partition }),
        1 => (partition.clone(), 0..3_i64).prop_map(|(partition, beyond)| Step::ReachEnd { partition, beyond }),
        1 => partition.clone().prop_map(|partition| Step::Rewind { partition }),
        1 => partition.clone().prop_map(|partition| Step::Revoke { partition }),
        2 => partition.prop_map(|partition| Step::Assign { partition }),
    ]
}

/// One record as the model sees it.
#[derive(Clone, Debug)]
struct Charged {
    offset: i64,
    ticket: Ticket,
    ended: bool,
    published: bool,
}

/// One partition as the model sees it: a list that nothing is ever taken out of.
#[derive(Clone, Debug, Default)]
struct Model {
    records: Vec<Charged>,
    position: i64,
    committed: i64,
    /// The frontier as of the last publication; a gap that was passed once stays passed.
    frontier: i64,
}

impl Model {
    fn move_frontier(&mut self) {
        let last_published = self.records.iter().take_while(|record| record.published).last();
        let after_records =
            last_published.map_or(self.frontier, |record| self.frontier.max(record.offset + 1));
        let all = self.records.iter().all(|record| record.published);
        self.frontier = if all {
            self.position.max(after_records)
        } else {
            after_records
        };
    }
}

#[derive(Default)]
struct World {
    ledger: Ledger<i64>,
    models: BTreeMap<i32, Model>,
    /// Where the log of each partition goes on, whatever is assigned.
    log_end: BTreeMap<i32, i64>,
    /// Every ticket that ever was.
    tickets: Vec<(Ticket, i64)>,
}

impl World {
    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Read { partition, gap } => self.read(partition, gap),
            Step::End { pick } => self.end(pick),
            Step::Reopen { partition } => self.reopen(partition),
            Step::Publish => self.publish(),
            Step::Commit => self.commit(),
            Step::Unpublish => {
                self.ledger.unpublish();
                for model in self.models.values_mut() {
                    model
                        .records
                        .iter_mut()
                        .for_each(|record| record.published = false);
                    model.frontier = model.committed;
                }
            }
            Step::ReachEnd { partition, beyond } => {
                let Some(model) = self.models.get_mut(&partition) else {
                    return;
                };
                model.position += beyond;
                self.ledger.reached_end(at(partition), Offset(model.position));
            }
            Step::Rewind { partition } => self.rewind(partition),
            Step::Revoke { partition } => {
                let volume = self.ledger.revoke(at(partition));
                let held = self
                    .models
                    .remove(&partition)
                    .map_or(0, |model| model.records.len() as u64);
                assert_eq!(
                    volume,
                    Volume {
                        records: held,
                        bytes: held * 10
                    }
                );
            }
            Step::Assign { partition } => {
                if self.models.contains_key(&partition) {
                    return;
                }
                let start = self.log_end.get(&partition).copied().unwrap_or(0);
                self.ledger.assign(at(partition), StartAt::Offset(Offset(start)));
                self.models.insert(
                    partition,
                    Model {
                        position: start,
                        committed: start,
                        frontier: start,
                        ..Model::default()
                    },
                );
            }
        }
    }

    fn read(&mut self, partition: i32, gap: i64) {
        let charged = |offset| self.ledger.charge(at(partition), Offset(offset), 10, offset);
        let Some(model) = self.models.get_mut(&partition) else {
            let mut ledger_only = charged;
            assert_eq!(ledger_only(0), Err(ChargeError::NotAssigned));
            return;
        };
        let mut charged = charged;
        let offset = model.position + gap;
        if offset > 0 {
            assert!(matches!(
                charged(model.position - 1),
                Err(ChargeError::Behind { .. })
            ));
        }
        let ticket = charged(offset).expect("assigned and in order");
        model.position = offset + 1;
        model.records.push(Charged {
            offset,
            ticket,
            ended: false,
            published: false,
        });
        self.tickets.push((ticket, offset));
    }

    fn end(&mut self, pick: usize) {
        if self.tickets.is_empty() {
            return;
        }
        let (ticket, offset) = self.tickets[pick % self.tickets.len()];
        let model = self.models.get_mut(&ticket.at.partition.0);
        let open = model.and_then(|model| {
            model
                .records
                .iter_mut()
                .find(|record| record.ticket == ticket && !record.ended)
        });
        let accepted = self.ledger.end(&ticket, offset);
        assert_eq!(
            accepted,
            open.is_some(),
            "a ticket counts once, and only in its own life"
        );
        if let Some(record) = open {
            record.ended = true;
        }
    }

    fn reopen(&mut self, partition: i32) {
        let reopened = self.ledger.reopen(at(partition), |offset| offset % 2 == 0);
        let model = self.models.get_mut(&partition);
        let records = model.map(|model| model.records.iter_mut());
        let mut wanted = Vec::new();
        for record in records.into_iter().flatten() {
            if record.ended && !record.published && record.offset % 2 == 0 {
                record.ended = false;
                wanted.push((record.ticket, record.offset));
            }
        }
        assert_eq!(
            reopened, wanted,
            "what was not published, in read order, with its ticket"
        );
    }

    fn publish(&mut self) {
        let mut seen: Vec<(i32, i64)> = Vec::new();
        self.ledger
            .publish(|at, offset, ending| {
                assert_eq!(offset.0, *ending);
                seen.push((at.partition.0, *ending));
                Ok::<(), ()>(())
            })
            .expect("publishing never fails here");
        let mut wanted = Vec::new();
        for (partition, model) in &mut self.models {
            for record in model.records.iter_mut().take_while(|record| record.ended) {
                if !record.published {
                    record.published = true;
                    wanted.push((*partition, record.offset));
                }
            }
            model.move_frontier();
        }
        seen.sort_by_key(|(partition, _)| *partition);
        assert_eq!(seen, wanted, "the ended prefix, each once, in read order");
    }

    fn commit(&mut self) {
        for commit in self.ledger.commits() {
            let partition = commit.at.partition.0;
            let model = self
                .models
                .get_mut(&partition)
                .expect("only what is assigned is committed");
            for record in &model.records {
                assert!(
                    record.offset >= commit.next.0 || record.published,
                    "a commit passed an open record"
                );
            }
            let covered = model
                .records
                .iter()
                .filter(|record| record.offset < commit.next.0)
                .count() as u64;
            assert_eq!(
                commit.volume,
                Volume {
                    records: covered,
                    bytes: covered * 10
                }
            );
            self.ledger.committed(&commit);
            model.records.retain(|record| record.offset >= commit.next.0);
            model.committed = commit.next.0;
            self.log_end.insert(partition, commit.next.0);
        }
        assert!(
            self.ledger.commits().is_empty(),
            "what was committed is not committed again"
        );
    }

    fn rewind(&mut self, partition: i32) {
        let rewound = self.ledger.rewind(at(partition));
        let Some(model) = self.models.get_mut(&partition) else {
            assert_eq!(rewound, None);
            return;
        };
        let held = model.records.len() as u64;
        assert_eq!(
            rewound,
            Some((
                StartAt::Offset(Offset(model.committed)),
                Volume {
                    records: held,
                    bytes: held * 10
                }
            ))
        );
        model.records.clear();
        model.position = model.committed;
        model.frontier = model.committed;
    }

    fn check(&self) {
        let mut outstanding = Volume::default();
        let mut open = 0;
        for (partition, model) in &self.models {
            let frontier = self.ledger.frontier(at(*partition)).expect("assigned");
            let first_open = model.records.iter().find(|record| !record.ended);
            assert!(
                first_open.is_none_or(|record| frontier.0 <= record.offset),
                "frontier beyond an open record"
            );
            assert!(frontier.0 >= model.committed, "frontier behind what is committed");
            assert_eq!(frontier.0, model.frontier);
            let held = model.records.len() as u64;
            outstanding.add(Volume {
                records: held,
                bytes: held * 10,
            });
            open += model.records.iter().filter(|record| !record.ended).count();
            assert_eq!(self.ledger.has_open(at(*partition)), first_open.is_some());
            assert_eq!(
                self.ledger.oldest_record_time_ms(at(*partition)),
                model.records.first().map(|record| record.offset)
            );
        }
        assert_eq!(self.ledger.outstanding(), outstanding);
        assert_eq!(self.ledger.open_records(), open);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_frontier_never_passes_an_open_record(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::default();
        for step in [Step::Assign { partition: 0 }, Step::Assign { partition: 1 }].iter().chain(&steps) {
            world.apply(step);
            world.check();
        }
    }
}

#[test]
fn records_that_end_out_of_order_are_published_in_read_order() {
    let mut ledger = Ledger::default();
    ledger.assign(at(0), StartAt::Offset(Offset(5)));
    let tickets: Vec<Ticket> = [5, 6, 9]
        .map(|offset| ledger.charge(at(0), Offset(offset), 1, 0).expect("charged"))
        .to_vec();
    let publish = |ledger: &mut Ledger<&'static str>| {
        let mut seen = Vec::new();
        ledger
            .publish(|_, _, ending| {
                seen.push(*ending);
                Ok::<(), ()>(())
            })
            .expect("never fails");
        seen
    };
    assert!(ledger.end(&tickets[2], "nine"));
    assert_eq!(publish(&mut ledger), Vec::<&str>::new());
    assert_eq!(ledger.frontier(at(0)), Some(Offset(5)));
    assert!(ledger.end(&tickets[0], "five"));
    assert_eq!(publish(&mut ledger), ["five"]);
    assert_eq!(ledger.frontier(at(0)), Some(Offset(6)));
    assert!(ledger.end(&tickets[1], "six"));
    assert_eq!(publish(&mut ledger), ["six", "nine"]);
    assert_eq!(ledger.frontier(at(0)), Some(Offset(10)));
}

#[test]
fn the_end_of_a_partition_moves_the_frontier_only_when_nothing_is_open() {
    let mut ledger: Ledger<()> = Ledger::default();
    ledger.assign(at(0), StartAt::Earliest);
    let ticket = ledger.charge(at(0), Offset(0), 1, 0).expect("charged");
    // A transaction marker stands at offset 1.
    ledger.reached_end(at(0), Offset(2));
    ledger.publish(|_, _, ()| Ok::<(), ()>(())).expect("never fails");
    assert_eq!(ledger.commits(), []);
    ledger.end(&ticket, ());
    ledger.publish(|_, _, ()| Ok::<(), ()>(())).expect("never fails");
    assert_eq!(ledger.frontier(at(0)), Some(Offset(2)));
}
