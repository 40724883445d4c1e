//! Sums as JSON.

use std::collections::BTreeMap;

use docstore::{Group, Summary, Total};
use domain::Currency;
use serde_json::{Map, Value, json};

/// The answer of `/api/summary`: counts are numbers, amounts are decimal strings per currency.
pub(crate) fn summary(summary: &Summary) -> Value {
    json!({
        "orders": total(&summary.orders),
        "payments": total(&summary.payments),
        "alerts": total(&summary.alerts),
        "by_currency": group(&summary.orders_by_currency),
        "by_country": group(&summary.orders_by_country),
        "by_status": group(&summary.payments_by_status),
        "by_risk_level": group(&summary.alerts_by_level),
        "newest_order_time_ms": summary.newest_order_ms,
    })
}

fn group(group: &Group) -> Value {
    Value::Object(
        group
            .iter()
            .map(|(name, sums)| (name.clone(), total(sums)))
            .collect::<Map<_, _>>(),
    )
}

fn total(total: &Total) -> Value {
    let amounts: BTreeMap<_, _> = total
        .amounts_minor
        .iter()
        .map(|(currency, minor)| (currency, decimal(currency, *minor)))
        .collect();
    json!({ "count": total.documents, "amounts": amounts })
}

/// Minor units as a plain decimal: `1066668454` GBP is `10666684.54`.
fn decimal(currency: &str, minor: i128) -> String {
    // Documents are written with a currency that was checked; one that is unknown all the same has
    // the two decimals that most have.
    let exponent = Currency::parse(currency).map_or(2, |currency| usize::from(currency.exponent()));
    let sign = if minor < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", minor.unsigned_abs(), width = exponent + 1);
    let (whole, fraction) = digits.split_at(digits.len() - exponent);
    if exponent == 0 {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_units_are_printed_with_the_decimals_of_their_currency() {
        let cases = [
            ("GBP", 1_066_668_454, "10666684.54"),
            ("USD", 5, "0.05"),
            ("USD", 0, "0.00"),
            ("USD", -105, "-1.05"),
            ("JPY", 500, "500"),
            ("KWD", 1_234, "1.234"),
            ("USD", i128::from(i64::MAX) * 3, "276701161105643274.21"),
        ];
        for (currency, minor, text) in cases {
            assert_eq!(decimal(currency, minor), text, "{currency} {minor}");
        }
    }
}
