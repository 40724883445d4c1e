//! The thread and its transactions.

use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use crate::columns;
use crate::document::{Collection, Outcome, VersionedDocument};
use crate::error::{StoreError, StoreErrorKind};
use crate::repeats::Repeats;

use super::apply::{Row, Rule, Table};
use super::connection::File;
use super::totals::{Deltas, Totals};

/// Batches that wait for the writer; a caller beyond that waits before it queues.
const QUEUED_BATCHES: usize = 64;
/// A transaction takes further waiting batches while it has fewer documents than this: enough that
/// the flush to disk no longer counts, few enough that nobody waits long for an answer.
const SHARED_TRANSACTION_DOCUMENTS: usize = 4_096;
/// How often a failure that goes on is logged again.
const LOG_EVERY: Duration = Duration::from_secs(10);

struct Job {
    collection: Collection,
    rule: Rule,
    rows: Vec<(usize, Row)>,
    outcome: Outcome,
    answer: oneshot::Sender<Result<Outcome, StoreError>>,
}

/// The way to the writer thread, which ends when this is dropped.
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
    file: File,
}

impl Writer {
    /// Opens the file for writing on a thread of its own.
    pub(super) fn start(file: File) -> Result<Self, StoreError> {
        let (jobs, waiting) = mpsc::channel(QUEUED_BATCHES);
        let (opened, outcome) = std::sync::mpsc::sync_channel(1);
        let writer = Self {
            jobs,
            file: file.clone(),
        };
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                let connection = match file.open_writer() {
                    Ok(connection) => connection,
                    Err(error) => return drop(opened.send(Err(error))),
                };
                match Transactions::prepare(&connection, &file) {
                    Ok(transactions) => {
                        drop(opened.send(Ok(())));
                        transactions.run(waiting);
                    }
                    Err(error) => drop(opened.send(Err(file.failure(&error)))),
                }
            })
            .map_err(|error| {
                StoreError::fatal(
                    "no_thread",
                    format!("can not start the store's writer thread: {error}"),
                )
            })?;
        outcome.recv().unwrap_or_else(|_| Err(writer.ended()))?;
        Ok(writer)
    }

    /// Checks the documents here, on the caller's thread, and has the rest written.
    pub(super) async fn write(
        &self,
        collection: Collection,
        rule: Rule,
        documents: &[VersionedDocument],
    ) -> Result<Outcome, StoreError> {
        let mut outcome = Outcome::default();
        let mut rows = Vec::with_capacity(documents.len());
        for (index, document) in documents.iter().enumerate() {
            match columns::extract(collection, document) {
                Ok(columns) => rows.push((
                    index,
                    Row {
                        document: document.clone(),
                        columns,
                    },
                )),
                Err(error) => outcome.refused.push((index, error)),
            }
        }
        if rows.is_empty() {
            return Ok(outcome);
        }
        let (answer, answered) = oneshot::channel();
        let job = Job {
            collection,
            rule,
            rows,
            outcome,
            answer,
        };
        self.jobs.send(job).await.map_err(|_| self.ended())?;
        answered.await.map_err(|_| self.ended())?
    }

    fn ended(&self) -> StoreError {
        StoreError::fatal(
            "writer_ended",
            format!(
                "the thread that writes {} has ended: this is a bug, restart",
                self.file
            ),
        )
    }
}

/// The statements and the state of the writer thread.
struct Transactions<'c> {
    connection: &'c Connection,
    file: &'c File,
    tables: [Table<'c>; Collection::ALL.len()],
    totals: Totals<'c>,
    repeats: Repeats,
}

impl<'c> Transactions<'c> {
    fn prepare(connection: &'c Connection, file: &'c File) -> rusqlite::Result<Self> {
        let table = |collection| Table::prepare(connection, collection);
        Ok(Self {
            connection,
            file,
            tables: [
                table(Collection::Orders)?,
                table(Collection::Alerts)?,
                table(Collection::Payments)?,
                table(Collection::Aggregates)?,
            ],
            totals: Totals::prepare(connection)?,
            repeats: Repeats::new(LOG_EVERY),
        })
    }

    fn run(mut self, mut waiting: mpsc::Receiver<Job>) {
        while let Some(first) = waiting.blocking_recv() {
            let mut documents = first.rows.len();
            let mut jobs = vec![first];
            while documents < SHARED_TRANSACTION_DOCUMENTS {
                let Ok(next) = waiting.try_recv() else { break };
                documents += next.rows.len();
                jobs.push(next);
            }
            let result = self
                .transaction(&mut jobs)
                .map_err(|error| self.file.failure(&error));
            self.log(&result);
            for Job { outcome, answer, .. } in jobs {
                // A caller that gave up does not want the answer; the batch is written all the same.
                drop(answer.send(result.clone().map(|()| outcome)));
            }
        }
    }

    /// Writes all the jobs, or nothing: a transaction that is not committed is rolled back.
    fn transaction(&mut self, jobs: &mut [Job]) -> rusqlite::Result<()> {
        // Immediate: the lock is taken, and waited for, before anything is done.
        let transaction = Transaction::new_unchecked(self.connection, TransactionBehavior::Immediate)?;
        self.write(jobs)?;
        transaction.commit()
    }

    fn write(&mut self, jobs: &mut [Job]) -> rusqlite::Result<()> {
        let mut deltas = Deltas::default();
        for job in jobs {
            let [orders, alerts, payments, aggregates] = &mut self.tables;
            let table = match job.collection {
                Collection::Orders => orders,
                Collection::Alerts => alerts,
                Collection::Payments => payments,
                Collection::Aggregates => aggregates,
            };
            for (index, row) in &job.rows {
                match table.write(job.rule, row, &mut deltas) {
                    Ok(true) => job.outcome.applied += 1,
                    Ok(false) => job.outcome.skipped += 1,
                    Err(error) => match self.file.failure(&error) {
                        // A statement that fails undoes itself alone; the transaction goes on.
                        refusal if refusal.kind() == StoreErrorKind::Poison => {
                            job.outcome.refused.push((*index, refusal));
                        }
                        _ => return Err(error),
                    },
                }
            }
            job.outcome.refused.sort_by_key(|(index, _)| *index);
        }
        self.totals.apply(deltas)
    }

    fn log(&mut self, result: &Result<(), StoreError>) {
        match result {
            Ok(()) => {
                if self.repeats.clear() {
                    tracing::info!(file = %self.file.path().display(), "store writes again");
                }
            }
            Err(error) => {
                let Some(left_out) = self.repeats.due(error.code(), Instant::now()) else {
                    return;
                };
                let (code, file) = (error.code(), self.file.path().display());
                match error.kind() {
                    StoreErrorKind::Fatal => {
                        tracing::error!(%file, code, left_out, %error, "store can not write")
                    }
                    _ => tracing::warn!(%file, code, left_out, %error, "store can not write for now"),
                }
            }
        }
    }
}
