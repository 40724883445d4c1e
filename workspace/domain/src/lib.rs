//! Orders, money, alerts, payments and events: what orderflow's messages mean.
//!
//! Guarantees: amounts are exact (no float anywhere), decoding borrows and never panics or recurses, whatever
//! the bytes; what is refused is refused with a stable code and a sentence that names field and value; what is
//! written reads back the same. Pure: no clock, no I/O, no environment, no randomness.
//!
//! Every crate of orderflow that knows what an order is may call it; `stream` and `docstore` move bytes and
//! need only [`Secret`].
//!
//! - [`json`]: the scanner that finds fields without building a tree, and the writers.
//! - [`Order`] and [`OrderId`]: orders as they stand in the topic.
//! - [`admit`]: what an order must be to enter the topic.
//! - [`NewOrder`]: orders that orderflow makes itself.
//! - [`Money`], [`Currency`], [`Decimal`]: exact amounts.
//! - [`Country`] and [`EventTime`]: where and when.
//! - [`Alert`], [`Payment`], [`EventEnvelope`]: what the workers write.
//! - [`ids`]: ids that follow from the order.
//! - [`Rejection`]: why a message was refused.
//! - [`OrderSettings`]: what every service has to agree on about orders.
//! - [`Secret`]: text that can not be printed by accident.
//!
//! The JSON schemas of the messages stand in `docs/schemas/`; the tests hold both against each other.

mod alert;
mod country;
mod currency;
mod decimal;
mod event;
mod fields;
pub mod ids;
mod intake;
pub mod json;
mod money;
mod new_order;
mod order;
mod payment;
mod rejection;
mod secret;
mod settings;
mod time;

pub use alert::{Alert, RiskLevel};
pub use country::Country;
pub use currency::Currency;
pub use decimal::Decimal;
pub use event::{EventEnvelope, EventMetadata, JsonObject, Priority};
pub use intake::{AdmittedOrder, RESERVED_FIELD, admit};
pub use money::{MinorUnits, Money};
pub use new_order::{NewItem, NewOrder};
pub use order::{MAX_ORDER_ID_CHARS, Order, OrderId};
pub use payment::{Payment, PaymentStatus};
pub use rejection::{Rejection, RejectionCode, shown};
pub use secret::Secret;
pub use settings::OrderSettings;
pub use time::EventTime;

/// Most bytes of an order.
pub const MAX_ORDER_BYTES: usize = 256 * 1024;

/// Most bytes of a message that is made from an order: derived topics allow 64 KiB more than their source.
pub const MAX_DERIVED_BYTES: usize = MAX_ORDER_BYTES + 64 * 1024;

/// Most bytes of a customer's or vendor's name.
pub const MAX_NAME_BYTES: usize = 512;
