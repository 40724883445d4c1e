//! CSV whose columns are named by the user.

use std::str::FromStr;

use domain::{Country, Currency, EventTime, Money, NewOrder, OrderId, Rejection, admit};

use super::table::{Row, Table};
use super::{Entry, Rejected, Source, SourceError};

const FIELDS: [&str; 7] = [
    "order_id",
    "amount",
    "country",
    "currency",
    "customer_id",
    "vendor",
    "timestamp",
];
const REQUIRED: usize = 3;

/// Which column holds which field of an order: `order_id=Id,amount=Total,country=Land`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnMap {
    /// The column's name per field of [`FIELDS`].
    columns: [Option<String>; FIELDS.len()],
}

impl ColumnMap {
    /// The map for a file whose columns have the names of the fields; `None` when a required one is missing.
    pub(crate) fn by_name(header: &[String]) -> Option<Self> {
        let columns = FIELDS.map(|field| header.iter().any(|name| name == field).then(|| field.to_owned()));
        columns
            .iter()
            .take(REQUIRED)
            .all(Option::is_some)
            .then_some(Self { columns })
    }
}

impl FromStr for ColumnMap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut columns = [const { None }; FIELDS.len()];
        for pair in text.split(',') {
            let (field, column) = pair
                .split_once('=')
                .ok_or_else(|| format!("`{pair}`, must be `field=COLUMN` pairs separated by commas"))?;
            let (field, column) = (field.trim(), column.trim());
            let slot = FIELDS.iter().zip(&mut columns).find(|(name, _)| **name == field);
            let Some((_, slot)) = slot else {
                return Err(format!(
                    "`{field}` is no field of an order, must be one of {}",
                    FIELDS.join(", ")
                ));
            };
            if column.is_empty() || slot.replace(column.to_owned()).is_some() {
                return Err(format!("`{field}` must stand once, with the name of a column"));
            }
        }
        for (field, column) in FIELDS.iter().zip(&columns).take(REQUIRED) {
            if column.is_none() {
                return Err(format!("`{field}` is missing, must be mapped to a column"));
            }
        }
        Ok(Self { columns })
    }
}

/// Orders from rows, one each.
pub(crate) struct Mapped {
    name: String,
    table: Table,
    /// The index of the column per field of [`FIELDS`].
    places: [Option<usize>; FIELDS.len()],
    default_currency: Currency,
}

impl Mapped {
    pub(crate) fn new(
        name: String,
        table: Table,
        map: &ColumnMap,
        default_currency: Currency,
    ) -> Result<Self, String> {
        let mut places = [None; FIELDS.len()];
        for ((field, column), place) in FIELDS.iter().zip(&map.columns).zip(&mut places) {
            let Some(column) = column else { continue };
            let mut found = table
                .header()
                .iter()
                .enumerate()
                .filter(|(_, name)| *name == column);
            let known = || domain::shown(&table.header().join(", "));
            *place = match (found.next(), found.next()) {
                (Some((index, _)), None) => Some(index),
                (None, _) => {
                    return Err(format!(
                        "`--map {field}={column}`: `{name}` has no such column, it has `{}`",
                        known()
                    ));
                }
                (Some(_), Some(_)) => {
                    return Err(format!(
                        "`--map {field}={column}`: `{name}` has that column twice: `{}`",
                        known()
                    ));
                }
            };
        }
        Ok(Self {
            name,
            table,
            places,
            default_currency,
        })
    }

    fn order(&self, fields: &[String]) -> Result<NewOrder, Rejection> {
        let [id, amount, country, currency, customer_id, vendor, timestamp] = self.places.map(|place| {
            place
                .and_then(|index| fields.get(index))
                .map(|text| text.trim())
                .filter(|text| !text.is_empty())
        });
        let currency = currency.map_or(Ok(self.default_currency), Currency::parse)?;
        Ok(NewOrder {
            id: OrderId::from_text(id.unwrap_or_default().to_owned())?,
            money: Money::parse(amount.unwrap_or_default(), currency)?,
            country: Country::parse(country.unwrap_or_default())?,
            customer_id: customer_id.map(str::to_owned),
            vendor: vendor.map(str::to_owned),
            timestamp: timestamp.map(read_time).transpose()?,
            items: Vec::new(),
        })
    }
}

/// RFC 3339; a date and time without a zone is read as UTC.
pub(super) fn read_time(text: &str) -> Result<EventTime, Rejection> {
    EventTime::parse(text).or_else(|rejection| EventTime::parse(&format!("{text}Z")).map_err(|_| rejection))
}

impl Source for Mapped {
    fn next_entry(&mut self, now: EventTime) -> Result<Option<Entry>, SourceError> {
        let row = self
            .table
            .next_row()
            .map_err(|error| SourceError::Unreadable(format!("`{}` can not be read: {error}", self.name)))?;
        Ok(row.map(|row| match row {
            Row::Bad(line, problem) => Entry::Rejected {
                line,
                rejection: Rejected::line(problem),
                counts: true,
            },
            Row::Fields(line, fields) => match self.order(&fields).and_then(|order| {
                let mut bytes = Vec::new();
                order.encode(&mut bytes);
                admit(&bytes, self.default_currency, now)
            }) {
                Ok(order) => Entry::Order { line, order },
                Err(rejection) => Entry::Rejected {
                    line,
                    rejection: rejection.into(),
                    counts: true,
                },
            },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_names_each_required_field_once() {
        assert!(
            "order_id=Id, amount=Total,country=Land"
                .parse::<ColumnMap>()
                .is_ok()
        );
        for (map, problem) in [
            ("order_id=Id,amount=Total", "`country` is missing"),
            (
                "order_id=Id,amount=Total,country=Land,country=C",
                "`country` must stand once",
            ),
            (
                "order_id=Id,amount=Total,land=Land",
                "`land` is no field of an order",
            ),
            ("order_id", "`order_id`, must be `field=COLUMN` pairs"),
            (
                "order_id=,amount=a,country=b",
                "`order_id` must stand once, with the name of a column",
            ),
        ] {
            let found = map.parse::<ColumnMap>().unwrap_err();
            assert!(found.contains(problem), "{found}");
        }
    }
}
