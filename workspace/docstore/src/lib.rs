//! The document store: orders, alerts, payments and aggregates as JSON documents.
//!
//! What it guarantees:
//! - **Guarded writes.** A document carries a [`Version`], the place in the log that it reflects.
//!   [`DocumentStore::upsert_newer`] never lets an older version replace a newer one and
//!   [`DocumentStore::insert_first`] never lets a repeat replace the first occurrence, so any
//!   batch may be replayed, in any order, after any crash.
//! - **All or nothing.** A batch is written whole and on disk before the answer, or it is not
//!   written; a document that can never be stored is refused by itself and named in the [`Outcome`].
//! - **Exact amounts.** Totals are summed in integer minor units, in the transaction that wrote the
//!   documents, so they equal a recount at every moment.
//! - **Errors that say what to do.** Each [`StoreError`] is transient, poison or fatal, and names
//!   the file and the remedy.
//!
//! Who may call it: analytics writes, report and the operator's command read. Several processes may
//! open the same store at once, in any order, also before it exists.
//!
//! - [`document`](mod@document): collections, versions, documents and what a write did.
//! - [`error`](mod@error): the error type and its three classes.
//! - [`settings`](mod@settings): the config section `store`.
//! - [`store`](mod@store): the trait, and [`open`].
//! - [`summary`](mod@summary): totals per currency, country, payment status and risk level.
//! - `columns`: what a store extracts from a document on write (pure).
//! - `metrics`: names and registration of the metrics.
//! - `repeats`: keeps a log line that would repeat from flooding the log (pure).
//! - `sqlite`: the embedded engine.

mod columns;
pub mod document;
pub mod error;
pub mod metrics;
mod repeats;
pub mod settings;
mod sqlite;
pub mod store;
pub mod summary;

pub use document::{Collection, OrderRecord, Outcome, StoredDocument, Version, VersionedDocument};
pub use error::{StoreError, StoreErrorKind};
pub use settings::{SqliteSettings, StoreSettings, Synchronous};
pub use store::{DocumentStore, open, open_observed};
pub use summary::{Arrivals, Group, Summary, Total};
