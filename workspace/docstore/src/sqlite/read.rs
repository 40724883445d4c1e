//! The queries.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::document::{Collection, MAX_LIST_BYTES, OrderRecord, StoredDocument, Version};
use crate::summary::{Arrivals, Group, Summary, Total};

use super::totals::parse_minor;

/// An order with its payment and its alert, which have the order's key.
const ORDER_RECORD: &str = "SELECT
        o.key, o.generation, o.source_offset, o.body,
        p.key, p.generation, p.source_offset, p.body,
        a.key, a.generation, a.source_offset, a.body
    FROM orders o LEFT JOIN payments p ON p.key = o.key LEFT JOIN alerts a ON a.key = o.key";

pub(super) fn recent_orders(connection: &Connection, limit: usize) -> rusqlite::Result<Vec<OrderRecord>> {
    let part = |part: &Option<StoredDocument>| part.as_ref().map_or(0, |part| part.body.len());
    let mut statement = connection.prepare(&format!(
        "{ORDER_RECORD} ORDER BY o.record_time DESC, o.source_offset DESC, o.rowid DESC LIMIT ?1"
    ))?;
    bounded(
        statement.query_map([rows_up_to(limit)], order_record)?,
        |record| record.order.body.len() + part(&record.payment) + part(&record.alert),
    )
}

pub(super) fn order(connection: &Connection, id: &str) -> rusqlite::Result<Option<OrderRecord>> {
    connection
        .query_row(&format!("{ORDER_RECORD} WHERE o.key = ?1"), [id], order_record)
        .optional()
}

pub(super) fn alerts(connection: &Connection, limit: usize) -> rusqlite::Result<Vec<StoredDocument>> {
    let mut statement = connection.prepare(
        "SELECT key, generation, source_offset, body FROM alerts
         ORDER BY record_time DESC, source_offset DESC, rowid DESC LIMIT ?1",
    )?;
    bounded(
        statement.query_map([rows_up_to(limit)], |row| document(row, 0))?,
        |alert| alert.body.len(),
    )
}

pub(super) fn page(
    connection: &Connection,
    collection: Collection,
    after: Option<&str>,
    limit: usize,
) -> rusqlite::Result<Vec<StoredDocument>> {
    // No key is empty.
    let mut statement = connection.prepare(&format!(
        "SELECT key, generation, source_offset, body FROM {} WHERE key > ?1 ORDER BY key LIMIT ?2",
        collection.as_str()
    ))?;
    bounded(
        statement.query_map(params![after.unwrap_or_default(), rows_up_to(limit)], |row| {
            document(row, 0)
        })?,
        |document| document.body.len(),
    )
}

/// The rows up to the one with which they pass the bytes of a list.
fn bounded<T>(
    rows: impl Iterator<Item = rusqlite::Result<T>>,
    bytes: impl Fn(&T) -> usize,
) -> rusqlite::Result<Vec<T>> {
    let (mut list, mut total) = (Vec::new(), 0);
    for row in rows {
        let row = row?;
        total += bytes(&row);
        list.push(row);
        if total > MAX_LIST_BYTES {
            break;
        }
    }
    Ok(list)
}

/// One statement and so one moment: totals and documents of the same transaction.
pub(super) fn summary(connection: &Connection) -> rusqlite::Result<Summary> {
    let mut summary = Summary::default();
    let mut statement = connection.prepare(
        "SELECT collection, facet, currency, documents, amount_minor, (SELECT max(record_time) FROM orders) FROM totals",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (collection, facet): (String, String) = (row.get(0)?, row.get(1)?);
        let (currency, documents) = (row.get::<_, String>(2)?, count(row, 3)?);
        let minor = parse_minor(&row.get::<_, String>(4)?, 4)?;
        summary.newest_order_ms = row.get(5)?;
        let add = |total: &mut Total| {
            total.documents += documents;
            if !currency.is_empty() {
                *total.amounts_minor.entry(currency.clone()).or_default() += minor;
            }
        };
        let add_to = |group: &mut Group, name: &str| add(group.entry(name.to_owned()).or_default());
        match Collection::ALL
            .into_iter()
            .find(|known| known.as_str() == collection)
        {
            Some(Collection::Orders) => {
                add(&mut summary.orders);
                add_to(&mut summary.orders_by_country, &facet);
                add_to(&mut summary.orders_by_currency, &currency);
            }
            Some(Collection::Payments) => {
                add(&mut summary.payments);
                add_to(&mut summary.payments_by_status, &facet);
            }
            Some(Collection::Alerts) => {
                add(&mut summary.alerts);
                add_to(&mut summary.alerts_by_level, &facet);
            }
            Some(Collection::Aggregates) | None => {}
        }
    }
    Ok(summary)
}

pub(super) fn arrivals(connection: &Connection, since_ms: i64) -> rusqlite::Result<Vec<Arrivals>> {
    let mut newest_first = connection
        .prepare(
            "SELECT slot_start,
                sum(documents) FILTER (WHERE collection = 'orders'),
                sum(documents) FILTER (WHERE collection = 'alerts'),
                sum(documents) FILTER (WHERE collection = 'payments')
             FROM arrivals WHERE slot_start >= ?1 GROUP BY slot_start ORDER BY slot_start DESC LIMIT ?2",
        )?
        .query_map(params![since_ms, Arrivals::SLOTS_KEPT as i64], |row| {
            let slot_start_ms = row.get(0)?;
            Ok(Arrivals {
                slot_start_ms,
                orders: count(row, 1)?,
                alerts: count(row, 2)?,
                payments: count(row, 3)?,
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    newest_first.reverse();
    Ok(newest_first)
}

pub(super) fn ping(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("SELECT count(*) FROM (SELECT 1 FROM totals LIMIT 1)", [], |_| {
        Ok(())
    })
}

/// A number of documents; NULL, the sum of no rows, is 0.
fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number = row.get::<_, Option<i64>>(column)?.unwrap_or(0);
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

fn rows_up_to(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn order_record(row: &Row<'_>) -> rusqlite::Result<OrderRecord> {
    let joined = |first| match row.get_ref(first)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => document(row, first).map(Some),
    };
    Ok(OrderRecord {
        order: document(row, 0)?,
        payment: joined(4)?,
        alert: joined(8)?,
    })
}

/// Key, generation, offset and body in four columns from `first`.
fn document(row: &Row<'_>, first: usize) -> rusqlite::Result<StoredDocument> {
    Ok(StoredDocument {
        key: row.get(first)?,
        version: Version {
            generation: row.get(first + 1)?,
            offset: row.get(first + 2)?,
        },
        body: row.get(first + 3)?,
    })
}
