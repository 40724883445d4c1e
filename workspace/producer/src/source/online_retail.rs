//! The Online Retail data set (D. Chen, UCI Machine Learning Repository): one order per invoice.
//!
//! Lines of an invoice need not stand together, so all are read before the first order goes out; limits on
//! invoices and bytes keep that bounded. Orders go out in the order in which their invoices first appear.
//!
//! An invoice with a broken line is left out as a whole, because its total would be wrong without a sign of it.

use domain::{
    Country, Currency, Decimal, EventTime, NewItem, NewOrder, OrderId, Rejection, RejectionCode, admit,
};
use indexmap::IndexMap;

use super::mapped::read_time;
use super::table::{Row, Table};
use super::{Entry, Rejected, Source, SourceError};

const HEADER: [&str; 8] = [
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
];

/// Most invoices of a file.
const MAX_INVOICES: usize = 1_000_000;
/// Most bytes of lines of a file: what grouping keeps in memory is about twice that.
const MAX_BYTES: usize = 1024 * 1024 * 1024;

/// The countries as the data set writes them.
const COUNTRIES: [(&str, &str); 38] = [
    ("Australia", "AU"),
    ("Austria", "AT"),
    ("Bahrain", "BH"),
    ("Belgium", "BE"),
    ("Brazil", "BR"),
    ("Canada", "CA"),
    ("Channel Islands", "JE"),
    ("Cyprus", "CY"),
    ("Czech Republic", "CZ"),
    ("Denmark", "DK"),
    ("EIRE", "IE"),
    ("European Community", "EU"),
    ("Finland", "FI"),
    ("France", "FR"),
    ("Germany", "DE"),
    ("Greece", "GR"),
    ("Hong Kong", "HK"),
    ("Iceland", "IS"),
    ("Israel", "IL"),
    ("Italy", "IT"),
    ("Japan", "JP"),
    ("Lebanon", "LB"),
    ("Lithuania", "LT"),
    ("Malta", "MT"),
    ("Netherlands", "NL"),
    ("Norway", "NO"),
    ("Poland", "PL"),
    ("Portugal", "PT"),
    ("RSA", "ZA"),
    ("Saudi Arabia", "SA"),
    ("Singapore", "SG"),
    ("Spain", "ES"),
    ("Sweden", "SE"),
    ("Switzerland", "CH"),
    ("USA", "US"),
    ("United Arab Emirates", "AE"),
    ("United Kingdom", "GB"),
    ("Unspecified", "ZZ"),
];

pub(crate) fn is_header(header: &[String]) -> bool {
    header.iter().map(String::as_str).eq(HEADER)
}

/// The data set as a source of orders.
pub(crate) struct OnlineRetail {
    name: String,
    /// `None` once all lines were read.
    table: Option<Table>,
    currency: Option<Currency>,
    bytes: usize,
    invoices: IndexMap<String, Invoice>,
    ready: Option<indexmap::map::IntoIter<String, Invoice>>,
    /// Invoices of the whole file, cancelled and broken ones included.
    total: Option<u64>,
}

struct Invoice {
    line: u64,
    /// `C`: a cancellation, of which nothing more is read.
    cancelled: bool,
    broken: bool,
    total: Decimal,
    country: Country,
    customer_id: Option<String>,
    timestamp: Option<EventTime>,
    items: Vec<NewItem>,
}

struct Line {
    total: Decimal,
    country: Country,
    customer_id: Option<String>,
    timestamp: EventTime,
    item: NewItem,
}

impl OnlineRetail {
    pub(crate) fn new(name: String, table: Table) -> Self {
        Self {
            name,
            table: Some(table),
            currency: Currency::parse("GBP").ok(),
            bytes: 0,
            invoices: IndexMap::new(),
            ready: None,
            total: None,
        }
    }

    /// Takes one row; an entry when the row is bad.
    fn take(&mut self, line: u64, fields: &[String]) -> Result<Option<Entry>, SourceError> {
        let number = fields.first().map(|number| number.trim()).unwrap_or_default();
        if number.is_empty() {
            let rejection = Rejected::line("`InvoiceNo` is empty, must be an invoice number".to_owned());
            return Ok(Some(Entry::Rejected {
                line,
                rejection,
                counts: true,
            }));
        }
        self.bytes += fields.iter().map(String::len).sum::<usize>();
        if self.bytes > MAX_BYTES {
            return Err(self.beyond(&format!("more than {MAX_BYTES} bytes of lines")));
        }
        if self.invoices.len() == MAX_INVOICES && !self.invoices.contains_key(number) {
            return Err(self.beyond(&format!("more than {MAX_INVOICES} invoices")));
        }
        let invoice = self
            .invoices
            .entry(number.to_owned())
            .or_insert_with(|| Invoice::new(line, number));
        if invoice.cancelled {
            return Ok(None);
        }
        match read_line(fields).and_then(|read| invoice.add(read)) {
            Ok(()) => Ok(None),
            Err(mut rejection) => {
                rejection
                    .message
                    .push_str(&format!("; order `{}` is left out", domain::shown(number)));
                // The order is left out once, however many of its lines are broken.
                let counts = !std::mem::replace(&mut invoice.broken, true);
                Ok(Some(Entry::Rejected {
                    line,
                    rejection: rejection.into(),
                    counts,
                }))
            }
        }
    }

    fn beyond(&self, limit: &str) -> SourceError {
        SourceError::Unreadable(format!(
            "`{}` has {limit}, and all lines of an invoice have to be read before it is sent; split the file by invoice",
            self.name
        ))
    }

    fn finish(&self, number: String, invoice: Invoice, now: EventTime) -> Option<Entry> {
        if invoice.broken {
            return None;
        }
        let line = invoice.line;
        match invoice.order(number, self.currency?, now) {
            None => Some(Entry::Skipped),
            Some(Ok(order)) => Some(Entry::Order { line, order }),
            Some(Err(rejection)) => Some(Entry::Rejected {
                line,
                rejection: rejection.into(),
                counts: true,
            }),
        }
    }
}

impl Source for OnlineRetail {
    fn next_entry(&mut self, now: EventTime) -> Result<Option<Entry>, SourceError> {
        while let Some(table) = &mut self.table {
            let row = table.next_row().map_err(|error| {
                SourceError::Unreadable(format!("`{}` can not be read: {error}", self.name))
            })?;
            match row {
                None => {
                    self.table = None;
                    self.total = Some(self.invoices.len() as u64);
                    self.ready = Some(std::mem::take(&mut self.invoices).into_iter());
                }
                Some(Row::Bad(line, problem)) => {
                    let rejection = Rejected::line(problem);
                    return Ok(Some(Entry::Rejected {
                        line,
                        rejection,
                        counts: true,
                    }));
                }
                Some(Row::Fields(line, fields)) => {
                    if let Some(entry) = self.take(line, &fields)? {
                        return Ok(Some(entry));
                    }
                }
            }
        }
        while let Some((number, invoice)) = self.ready.as_mut().and_then(Iterator::next) {
            if let Some(entry) = self.finish(number, invoice, now) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    fn orders(&self) -> Option<u64> {
        self.total
    }
}

impl Invoice {
    fn new(line: u64, number: &str) -> Self {
        Self {
            line,
            cancelled: number.starts_with('C'),
            broken: false,
            total: Decimal::ZERO,
            country: Country::UNKNOWN,
            customer_id: None,
            timestamp: None,
            items: Vec::new(),
        }
    }

    fn add(&mut self, line: Line) -> Result<(), Rejection> {
        self.total = self.total.plus(line.total).ok_or_else(|| {
            Rejection::new(
                RejectionCode::AmountTooLarge,
                "the invoice's total does not fit, must be smaller",
            )
        })?;
        self.country = line.country;
        self.customer_id = self.customer_id.take().or(line.customer_id);
        self.timestamp = Some(line.timestamp);
        self.items.push(line.item);
        Ok(())
    }

    /// The order of this invoice; `None` for what is no order: a cancellation, or nothing to pay.
    fn order(
        self,
        number: String,
        currency: Currency,
        now: EventTime,
    ) -> Option<Result<domain::AdmittedOrder, Rejection>> {
        if self.cancelled || !self.total.is_positive() {
            return None;
        }
        let encode = || {
            let money = self.total.round_half_even(currency).ok_or_else(|| {
                Rejection::new(
                    RejectionCode::AmountTooLarge,
                    "the invoice's total does not fit, must be smaller",
                )
            })?;
            let order = NewOrder {
                id: OrderId::from_text(number)?,
                money,
                country: self.country,
                customer_id: self.customer_id,
                vendor: None,
                timestamp: self.timestamp,
                items: self.items,
            };
            let mut bytes = Vec::new();
            order.encode(&mut bytes);
            admit(&bytes, currency, now)
        };
        Some(encode())
    }
}

fn read_line(fields: &[String]) -> Result<Line, Rejection> {
    let [_, sku, description, quantity, date, price, customer_id, country] = fields else {
        return Err(Rejection::new(
            RejectionCode::InvalidValue,
            "the row must have 8 fields",
        ));
    };
    let quantity = quantity
        .trim()
        .parse::<i64>()
        .map_err(|_| Rejection::value(RejectionCode::InvalidValue, "Quantity", quantity, "an integer"))?;
    let unit_price = Decimal::parse(price.trim())
        .map_err(|rejection| Rejection::value(rejection.code, "UnitPrice", price, "a decimal number"))?;
    let total = unit_price.times(quantity).ok_or_else(|| {
        Rejection::value(
            RejectionCode::AmountTooLarge,
            "Quantity",
            &quantity.to_string(),
            "smaller",
        )
    })?;
    let timestamp = read_time(date.trim()).map_err(|_| {
        let must = "a date and time such as `2010-12-01 08:26:00`";
        Rejection::value(RejectionCode::InvalidTimestamp, "InvoiceDate", date, must)
    })?;
    let filled = |text: &String| {
        Some(text.trim())
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    Ok(Line {
        total,
        country: read_country(country.trim())?,
        customer_id: filled(customer_id),
        timestamp,
        item: NewItem {
            sku: sku.trim().to_owned(),
            description: filled(description),
            quantity,
            unit_price,
        },
    })
}

fn read_country(name: &str) -> Result<Country, Rejection> {
    let code = COUNTRIES
        .iter()
        .find(|(known, _)| *known == name)
        .map_or(name, |(_, code)| code);
    Country::parse(code).map_err(|_| {
        let must = "a country of the data set, such as `United Kingdom`, or two letters A to Z";
        Rejection::value(RejectionCode::InvalidCountry, "Country", name, must)
    })
}
