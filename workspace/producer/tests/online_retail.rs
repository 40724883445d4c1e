//! The real data set: its published counts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::collections::BTreeMap;
use std::str::FromStr;

use bigdecimal::BigDecimal;
use domain::{Currency, EventTime, Order};
use producer::source::{Entry, Format, open};

#[test]
fn online_retail_gives_the_published_counts() {
    let Some(path) = testkit::data_file("online-retail.csv.zst") else {
        return;
    };
    let mut file = open(&path, Format::Auto, None, Currency::USD).unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(file.layout, "online retail");
    let (mut orders, mut skipped, mut hits, mut british, mut largest) = (0, 0, 0, 0, 0);
    let mut sum = BigDecimal::from(0);
    let mut finer = BTreeMap::new();
    while let Some(entry) = file
        .source
        .next_entry(EventTime(0))
        .unwrap_or_else(|error| panic!("{error:?}"))
    {
        let order = match entry {
            Entry::Skipped => {
                skipped += 1;
                continue;
            }
            Entry::Rejected { line, rejection, .. } => panic!("line {line}: {}", rejection.message),
            Entry::Order { order, .. } => order,
        };
        let decoded = Order::decode(&order.value, Currency::USD).unwrap();
        orders += 1;
        largest = largest.max(order.value.len());
        let amount = BigDecimal::from_str(&decoded.money.to_string()).unwrap();
        // The rule on another implementation of decimals: more than 300, and neither US nor CA.
        let hit = amount > 300 && !["US", "CA"].contains(&decoded.country.as_str());
        hits += u32::from(hit);
        british += u32::from(hit && decoded.country.as_str() == "GB");
        sum += &amount;
        if ["550193", "561226", "568200", "568375"].contains(&decoded.id.text()) {
            let json: serde_json::Value = serde_json::from_slice(&order.value).unwrap();
            let exact = json["items"]
                .as_array()
                .unwrap()
                .iter()
                .fold(BigDecimal::from(0), |sum, item| {
                    let number = |name: &str| BigDecimal::from_str(&item[name].to_string()).unwrap();
                    sum + number("quantity") * number("unit_price")
                });
            assert_ne!(exact, amount, "{} is finer than a penny", decoded.id);
            finer.insert(
                decoded.id.text().to_owned(),
                exact.with_scale_round(2, bigdecimal::RoundingMode::HalfEven) == amount,
            );
        }
    }
    assert_eq!((orders, skipped, hits, british), (19_960, 5_940, 10_314, 9_053));
    assert_eq!(sum.to_string(), "10666684.54");
    assert_eq!(finer.values().filter(|&&rounded| rounded).count(), 4, "{finer:?}");
    assert!(largest < domain::MAX_ORDER_BYTES, "{largest}");
    assert_eq!(file.source.orders(), Some(25_900));
}
