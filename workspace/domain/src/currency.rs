//! Currencies of ISO 4217 and the number of decimals of each.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::rejection::{Rejection, RejectionCode};

/// Codes of ISO 4217 list one, grouped by their minor unit. Codes withdrawn since 2020 (BGN, CUC, HRK, SLL,
/// ANG, ZWL) stay, because old orders are replayed. Units without a minor unit of their own (gold `XAU`, test
/// code `XTS`, no currency `XXX`, ...) are no currencies to pay in and are unknown here.
const WITHOUT_DECIMALS: &str = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF";
const WITH_TWO: &str = "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN \
    BZD CAD CDF CHE CHF CHW CNY COP COU CRC CUC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD \
    GTQ GYD HKD HNL HRK HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD \
    MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB \
    SAR SBD SCR SDG SEK SGD SHP SLE SLL SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN \
    UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG ZWL";
const WITH_THREE: &str = "BHD IQD JOD KWD LYD OMR TND";
const WITH_FOUR: &str = "CLF UYW";

const UNKNOWN: u8 = u8::MAX;
const SLOTS: usize = 26 * 26 * 26;

/// Decimals by code, one byte for each of the 26^3 possible codes: a look-up is one load.
static DECIMALS: [u8; SLOTS] = {
    let mut table = [UNKNOWN; SLOTS];
    table = with_codes(table, WITHOUT_DECIMALS, 0);
    table = with_codes(table, WITH_TWO, 2);
    table = with_codes(table, WITH_THREE, 3);
    with_codes(table, WITH_FOUR, 4)
};

/// Runs at compile time only, where an index out of range would be a compile error.
#[allow(clippy::indexing_slicing)]
const fn with_codes(mut table: [u8; SLOTS], codes: &str, decimals: u8) -> [u8; SLOTS] {
    let bytes = codes.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b' ' {
            at += 1;
            continue;
        }
        let slot = (bytes[at] - b'A') as usize * 676
            + (bytes[at + 1] - b'A') as usize * 26
            + (bytes[at + 2] - b'A') as usize;
        table[slot] = decimals;
        at += 3;
    }
    table
}

/// A currency of ISO 4217.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency {
    code: [u8; 3],
    decimals: u8,
}

impl Currency {
    /// The US dollar, the default where neither order nor config names a currency.
    pub const USD: Self = Self {
        code: *b"USD",
        decimals: 2,
    };

    /// Reads a code of three capital letters.
    ///
    /// # Errors
    /// `unknown_currency` for anything that ISO 4217 does not list.
    #[inline]
    pub fn parse(text: &str) -> Result<Self, Rejection> {
        Self::find(text.as_bytes()).ok_or_else(|| {
            Rejection::value(
                RejectionCode::UnknownCurrency,
                "currency",
                text,
                "a currency code of ISO 4217 in capital letters, such as `USD`",
            )
        })
    }

    #[inline]
    fn find(bytes: &[u8]) -> Option<Self> {
        let &[first, second, third] = bytes else {
            return None;
        };
        let letter = |byte: u8| byte.is_ascii_uppercase().then(|| usize::from(byte - b'A'));
        let slot = letter(first)? * 676 + letter(second)? * 26 + letter(third)?;
        let decimals = DECIMALS
            .get(slot)
            .copied()
            .filter(|&decimals| decimals != UNKNOWN)?;
        Some(Self {
            code: [first, second, third],
            decimals,
        })
    }

    /// How many decimals an amount in this currency has: 2 for USD, 0 for JPY, 3 for KWD.
    pub const fn exponent(self) -> u8 {
        self.decimals
    }

    /// The code.
    pub fn as_str(&self) -> &str {
        // Three capital letters by construction.
        std::str::from_utf8(&self.code).unwrap_or_default()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl std::str::FromStr for Currency {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Self, Rejection> {
        Self::parse(text)
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_those_of_iso_4217() {
        for (code, decimals) in [
            ("USD", 2),
            ("GBP", 2),
            ("JPY", 0),
            ("KRW", 0),
            ("KWD", 3),
            ("BHD", 3),
            ("CLF", 4),
            ("ISK", 0),
            ("HUF", 2),
        ] {
            assert_eq!(Currency::parse(code).unwrap().exponent(), decimals, "{code}");
            assert_eq!(Currency::parse(code).unwrap().as_str(), code);
        }
        assert_eq!(Currency::parse("USD").unwrap(), Currency::USD);
    }

    #[test]
    fn the_table_has_every_code_of_the_lists_and_no_other() {
        let listed = [WITHOUT_DECIMALS, WITH_TWO, WITH_THREE, WITH_FOUR]
            .iter()
            .flat_map(|codes| codes.split_whitespace())
            .collect::<std::collections::BTreeSet<_>>();
        assert!(listed.iter().all(|code| Currency::parse(code).is_ok()));
        assert_eq!(
            DECIMALS.iter().filter(|&&decimals| decimals != UNKNOWN).count(),
            listed.len()
        );
        // 178 active and recently withdrawn codes with a minor unit.
        assert!((160..=185).contains(&listed.len()), "{}", listed.len());
    }

    #[test]
    fn what_iso_4217_does_not_list_is_refused() {
        for text in [
            "", "US", "usd", "USDX", "ABC", "XXX", "XTS", "XAU", "U$D", "ÄÖ", "\0\0\0",
        ] {
            assert_eq!(
                Currency::parse(text).unwrap_err().code,
                RejectionCode::UnknownCurrency,
                "{text}"
            );
        }
    }
}
