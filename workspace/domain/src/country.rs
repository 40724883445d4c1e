//! Countries: two letters, not checked against a list, because ISO 3166-1 changes and reserves codes.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::rejection::{Rejection, RejectionCode};

/// Two letters A to Z: ISO 3166-1 alpha-2 and its reserved codes, such as `EU`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Country([u8; 2]);

impl Country {
    /// `ZZ`, a country that is not known.
    pub const UNKNOWN: Self = Self(*b"ZZ");

    /// Reads two capital letters.
    ///
    /// # Errors
    /// `invalid_country` for anything else.
    #[inline]
    pub fn parse(text: &str) -> Result<Self, Rejection> {
        match text.as_bytes() {
            &[first @ b'A'..=b'Z', second @ b'A'..=b'Z'] => Ok(Self([first, second])),
            _ => Err(Rejection::value(
                RejectionCode::InvalidCountry,
                "country",
                text,
                "two letters A to Z (ISO 3166-1 alpha-2), such as `US`",
            )),
        }
    }

    /// The code.
    pub fn as_str(&self) -> &str {
        // Two capital letters by construction.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Country {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl std::str::FromStr for Country {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Self, Rejection> {
        Self::parse(text)
    }
}

impl Serialize for Country {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Country {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}
