//! The guarded write of one document.

use rusqlite::{Connection, OptionalExtension, Statement, params};

use crate::columns::Columns;
use crate::document::{Collection, Version, VersionedDocument};

use super::totals::Deltas;

/// Which document stays when a key is written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The one of the higher version.
    Newer,
    /// The one that was there first, within a generation.
    First,
}

impl Rule {
    fn replaces(self, stored: Version, offered: Version) -> bool {
        match self {
            Rule::Newer => offered > stored,
            Rule::First => offered.generation > stored.generation,
        }
    }
}

/// A document that was checked, with its columns.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) document: VersionedDocument,
    pub(super) columns: Columns,
}

/// The statements that write one collection.
pub(super) struct Table<'c> {
    collection: Collection,
    insert: Statement<'c>,
    find: Statement<'c>,
    replace: Statement<'c>,
}

impl<'c> Table<'c> {
    pub(super) fn prepare(connection: &'c Connection, collection: Collection) -> rusqlite::Result<Self> {
        let table = collection.as_str();
        // Parameters have the same numbers everywhere: 1 key, 2 generation, 3 offset, 4 body,
        // 5 record time, 6 facet, 7 currency, 8 amount; aggregates have the first four.
        let (names, places, sets) = match collection {
            Collection::Orders => columns("country"),
            Collection::Alerts => columns("risk_level"),
            Collection::Payments => columns("status"),
            Collection::Aggregates => Default::default(),
        };
        let found = match collection {
            Collection::Aggregates => ", 0, '', NULL, NULL".to_owned(),
            _ => names.clone(),
        };
        Ok(Self {
            collection,
            insert: connection.prepare(&format!(
                "INSERT INTO {table} (key, generation, source_offset, body{names}) VALUES (?1, ?2, ?3, ?4{places})
                 ON CONFLICT (key) DO NOTHING"
            ))?,
            find: connection
                .prepare(&format!("SELECT rowid, generation, source_offset{found} FROM {table} WHERE key = ?1"))?,
            replace: connection.prepare(&format!(
                "UPDATE {table} SET key = ?1, generation = ?2, source_offset = ?3, body = ?4{sets} WHERE rowid = ?9"
            ))?,
        })
    }

    /// Writes the document if the rule lets it; says whether it did. A document that is not there
    /// yet, the common case, costs one statement.
    pub(super) fn write(&mut self, rule: Rule, row: &Row, deltas: &mut Deltas) -> rusqlite::Result<bool> {
        if self.bind_and_run(None, row)? == 1 {
            deltas.add(self.collection, &row.columns);
            return Ok(true);
        }
        let found = self
            .find
            .query_row([&row.document.key], |found| {
                let stored = Version {
                    generation: found.get(1)?,
                    offset: found.get(2)?,
                };
                if !rule.replaces(stored, row.document.version) {
                    return Ok(None);
                }
                let amount = found
                    .get::<_, Option<String>>(5)?
                    .zip(found.get::<_, Option<i64>>(6)?);
                let facet = found.get::<_, String>(4)?.into();
                Ok(Some((
                    found.get::<_, i64>(0)?,
                    Columns {
                        record_time_ms: found.get(3)?,
                        facet,
                        amount,
                    },
                )))
            })
            .optional()?;
        let Some(Some((rowid, before))) = found else {
            return Ok(false);
        };
        self.bind_and_run(Some(rowid), row)?;
        deltas.remove(self.collection, &before);
        deltas.add(self.collection, &row.columns);
        Ok(true)
    }

    /// Inserts, or replaces the row that is given.
    fn bind_and_run(&mut self, rowid: Option<i64>, row: &Row) -> rusqlite::Result<usize> {
        let Row { document, columns } = row;
        let Version { generation, offset } = document.version;
        let currency = columns.amount.as_ref().map(|(currency, _)| currency.as_str());
        let minor = columns.amount.as_ref().map(|(_, minor)| minor);
        let (time, facet) = (columns.record_time_ms, columns.facet.as_ref());
        let (key, body) = (&document.key, &document.body);
        match (rowid, self.collection) {
            (None, Collection::Aggregates) => self.insert.execute(params![key, generation, offset, body]),
            (None, _) => self.insert.execute(params![
                key, generation, offset, body, time, facet, currency, minor
            ]),
            (Some(rowid), _) => self.replace.execute(params![
                key, generation, offset, body, time, facet, currency, minor, rowid
            ]),
        }
    }
}

fn columns(facet: &str) -> (String, String, String) {
    (
        format!(", record_time, {facet}, currency, amount_minor"),
        ", ?5, ?6, ?7, ?8".to_owned(),
        format!(", record_time = ?5, {facet} = ?6, currency = ?7, amount_minor = ?8"),
    )
}
