//! What reading an order costs: this crate against `sonic-rs` and `serde_json`, in nanoseconds per order.
//!
//! `cargo bench -p domain`. The own scanner checks the whole text as JSON; `sonic-rs` reads a typed structure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::hint::black_box;
use std::time::Instant;

use domain::{Currency, Order};

#[derive(serde::Deserialize)]
#[allow(dead_code)]
struct Typed<'a> {
    order_id: i64,
    amount: f64,
    country: &'a str,
    currency: Option<&'a str>,
    timestamp: Option<&'a str>,
}

#[derive(serde::Deserialize)]
#[allow(dead_code)]
struct Raw<'a> {
    #[serde(borrow)]
    order_id: &'a serde_json::value::RawValue,
    #[serde(borrow)]
    amount: &'a serde_json::value::RawValue,
    country: &'a str,
    currency: Option<&'a str>,
    timestamp: Option<&'a str>,
}

fn order(id: usize, items: usize) -> Vec<u8> {
    let items: Vec<_> = (0..items)
        .map(|line| format!(r#"{{"sku":"85123{line}","description":"WHITE HANGING HEART","quantity":6,"unit_price":2.55}}"#))
        .collect();
    format!(
        r#"{{"order_id":{},"amount":{}.{:02},"country":"GB","currency":"GBP","customer_id":"17850","timestamp":"2010-12-01T08:26:00.000Z","items":[{}]}}"#,
        536_365 + id, id % 900, id % 100 + 1, items.join(",")
    )
    .into_bytes()
}

/// The fastest of thirty passes: the others were disturbed.
fn measure(name: &str, orders: &[Vec<u8>], mut read: impl FnMut(&[u8])) {
    let best = (0..30)
        .map(|_| {
            let started = Instant::now();
            orders.iter().for_each(|order| read(order));
            started.elapsed().as_nanos() as f64 / orders.len() as f64
        })
        .fold(f64::MAX, f64::min);
    println!("{name:<34} {best:>7.0} ns");
}

fn main() {
    for items in [0, 4] {
        let orders: Vec<_> = (0..20_000).map(|id| order(id, items)).collect();
        println!("orders of {} bytes", orders[0].len());
        measure("domain::Order::decode", &orders, |bytes| {
            black_box(Order::decode(black_box(bytes), Currency::USD).unwrap());
        });
        measure("domain::json::Fields", &orders, |bytes| {
            let mut fields =
                domain::json::Fields::of(std::str::from_utf8(black_box(bytes)).unwrap()).unwrap();
            while let Some(field) = fields.next_field().unwrap() {
                black_box(field);
            }
        });
        measure("sonic_rs::from_slice, typed, f64", &orders, |bytes| {
            black_box(sonic_rs::from_slice::<Typed<'_>>(black_box(bytes)).unwrap());
        });
        measure("serde_json::from_slice, RawValue", &orders, |bytes| {
            black_box(serde_json::from_slice::<Raw<'_>>(black_box(bytes)).unwrap());
        });
    }
}
