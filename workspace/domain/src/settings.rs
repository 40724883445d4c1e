//! The config section `orders`: what every service has to agree on about orders.

use serde::{Deserialize, Serialize};

use crate::currency::Currency;

/// The section `orders`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OrderSettings {
    /// The currency of orders that name none, an ISO 4217 code.
    pub default_currency: Currency,
}

impl Default for OrderSettings {
    fn default() -> Self {
        Self {
            default_currency: Currency::USD,
        }
    }
}
