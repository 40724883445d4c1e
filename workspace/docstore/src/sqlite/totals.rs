//! The sums that every transaction keeps up to date.
//!
//! A transaction adds up what its documents change in memory and writes each sum once, so totals
//! cost a few statements per batch, and a summary reads a few dozen rows however many documents
//! there are.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rusqlite::{Connection, OptionalExtension, Statement, params};

use crate::columns::Columns;
use crate::document::Collection;
use crate::summary::Arrivals;

/// What one transaction changes in the totals.
#[derive(Debug, Default)]
pub(super) struct Deltas {
    totals: HashMap<(Collection, String, String), (i64, i128)>,
    arrivals: HashMap<(Collection, i64), i64>,
}

impl Deltas {
    pub(super) fn add(&mut self, collection: Collection, columns: &Columns) {
        self.change(collection, columns, 1);
    }

    pub(super) fn remove(&mut self, collection: Collection, columns: &Columns) {
        self.change(collection, columns, -1);
    }

    fn change(&mut self, collection: Collection, columns: &Columns, sign: i64) {
        if collection == Collection::Aggregates {
            return;
        }
        let (currency, minor) = columns
            .amount
            .as_ref()
            .map_or(("", 0), |(code, minor)| (code.as_str(), *minor));
        let key = (collection, columns.facet.to_string(), currency.to_owned());
        let (documents, amount) = self.totals.entry(key).or_default();
        *documents += sign;
        *amount += i128::from(sign) * i128::from(minor);
        let slot = columns
            .record_time_ms
            .div_euclid(Arrivals::SLOT_MS)
            .saturating_mul(Arrivals::SLOT_MS);
        match self.arrivals.entry((collection, slot)) {
            Entry::Occupied(mut documents) => *documents.get_mut() += sign,
            Entry::Vacant(free) => drop(free.insert(sign)),
        }
    }
}

/// The statements that keep the totals.
pub(super) struct Totals<'c> {
    find: Statement<'c>,
    put: Statement<'c>,
    remove: Statement<'c>,
    arrived: Statement<'c>,
    first_arrived: Statement<'c>,
    trim_arrivals: Statement<'c>,
}

impl<'c> Totals<'c> {
    pub(super) fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            find: connection.prepare(
                "SELECT documents, amount_minor FROM totals WHERE collection = ?1 AND facet = ?2 AND currency = ?3",
            )?,
            put: connection.prepare(
                "INSERT INTO totals (collection, facet, currency, documents, amount_minor) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET documents = ?4, amount_minor = ?5",
            )?,
            remove: connection
                .prepare("DELETE FROM totals WHERE collection = ?1 AND facet = ?2 AND currency = ?3")?,
            // A slot that was trimmed away stays away: what leaves it later is not counted below 0.
            arrived: connection.prepare(
                "UPDATE arrivals SET documents = max(0, documents + ?3) WHERE collection = ?1 AND slot_start = ?2",
            )?,
            first_arrived: connection
                .prepare("INSERT INTO arrivals (collection, slot_start, documents) VALUES (?1, ?2, ?3)")?,
            trim_arrivals: connection.prepare(
                "DELETE FROM arrivals WHERE collection = ?1 AND slot_start <=
                    (SELECT slot_start FROM arrivals WHERE collection = ?1 ORDER BY slot_start DESC LIMIT 1 OFFSET ?2)",
            )?,
        })
    }

    /// Adds the changes of the transaction that is open.
    pub(super) fn apply(&mut self, deltas: Deltas) -> rusqlite::Result<()> {
        for ((collection, facet, currency), (documents, minor)) in deltas.totals {
            if (documents, minor) == (0, 0) {
                continue;
            }
            let collection = collection.as_str();
            let key = params![collection, facet, currency];
            let before = self
                .find
                .query_row(key, |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let (had, sum) = before.unwrap_or((0_i64, "0".to_owned()));
            let sum: i128 = parse_minor(&sum, 1)?;
            match had + documents {
                0 => self.remove.execute(key)?,
                documents => self.put.execute(params![
                    collection,
                    facet,
                    currency,
                    documents,
                    (sum + minor).to_string()
                ])?,
            };
        }
        for ((collection, slot), documents) in deltas.arrivals {
            let collection = collection.as_str();
            if documents == 0
                || self.arrived.execute(params![collection, slot, documents])? > 0
                || documents < 0
            {
                continue;
            }
            self.first_arrived.execute(params![collection, slot, documents])?;
            self.trim_arrivals
                .execute(params![collection, Arrivals::SLOTS_KEPT as i64])?;
        }
        Ok(())
    }
}

/// Reads a sum from the text in which it is stored; `column` is named when it is not a number.
pub(super) fn parse_minor(text: &str, column: usize) -> rusqlite::Result<i128> {
    text.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}
