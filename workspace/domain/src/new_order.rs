//! Orders that orderflow makes itself: from files of other layouts and from the generator.

use crate::country::Country;
use crate::decimal::Decimal;
use crate::json::{write_integer, write_string};
use crate::money::Money;
use crate::order::OrderId;
use crate::time::EventTime;

/// A line of an order.
#[derive(Debug, Clone)]
pub struct NewItem {
    /// The article's code.
    pub sku: String,
    /// What the article is.
    pub description: Option<String>,
    /// How many; negative for a return inside the order.
    pub quantity: i64,
    /// The price of one in the order's currency, which may be finer than its minor unit.
    pub unit_price: Decimal,
}

/// An order to be written. The fields are as in [`crate::Order`]; the amount must be more than 0, which
/// [`crate::admit`] checks.
#[derive(Debug, Clone)]
pub struct NewOrder {
    /// Which order.
    pub id: OrderId<'static>,
    /// The amount and its currency, which is always written.
    pub money: Money,
    /// Where the order comes from.
    pub country: Country,
    /// Who ordered.
    pub customer_id: Option<String>,
    /// Who sells.
    pub vendor: Option<String>,
    /// Event time.
    pub timestamp: Option<EventTime>,
    /// The lines; none are not written.
    pub items: Vec<NewItem>,
}

impl NewOrder {
    /// Appends the order as JSON.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"order_id\":");
        self.id.write_json(out);
        out.extend_from_slice(b",\"amount\":");
        self.money.write_json(out);
        out.extend_from_slice(b",\"currency\":");
        write_string(out, self.money.currency.as_str());
        out.extend_from_slice(b",\"country\":");
        write_string(out, self.country.as_str());
        for (name, value) in [("customer_id", &self.customer_id), ("vendor", &self.vendor)] {
            if let Some(text) = value {
                out.extend_from_slice(format!(",\"{name}\":").as_bytes());
                write_string(out, text);
            }
        }
        if let Some(time) = self.timestamp {
            out.extend_from_slice(format!(",\"timestamp\":\"{time}\"").as_bytes());
        }
        if !self.items.is_empty() {
            out.extend_from_slice(b",\"items\":[");
            for (index, item) in self.items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                item.encode(out);
            }
            out.push(b']');
        }
        out.push(b'}');
    }

    /// The record key: the text of the id.
    pub fn key(&self) -> String {
        self.id.text().to_owned()
    }
}

impl NewItem {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"sku\":");
        write_string(out, &self.sku);
        if let Some(description) = &self.description {
            out.extend_from_slice(b",\"description\":");
            write_string(out, description);
        }
        out.extend_from_slice(b",\"quantity\":");
        write_integer(out, self.quantity);
        out.extend_from_slice(format!(",\"unit_price\":{}}}", self.unit_price).as_bytes());
    }
}
