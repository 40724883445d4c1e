//! What the trait promises, on SQLite.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{Money, alert, document, open, order, payment, settings};
use docstore::{Arrivals, Collection, StoreErrorKind, Total, VersionedDocument};

fn keys(records: &[docstore::OrderRecord]) -> Vec<&str> {
    records.iter().map(|record| record.order.key.as_str()).collect()
}

fn gbp(minor: i128) -> BTreeMap<String, i128> {
    BTreeMap::from([("GBP".into(), minor)])
}

#[tokio::test]
async fn pages_give_every_document_of_one_collection_once_in_the_order_of_keys() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let orders: Vec<VersionedDocument> = [7, 10, 9, 1, 2]
        .map(|id: i64| order(&id.to_string(), (0, id), 100, "GB", Money("GBP", id)))
        .into();
    store.insert_first(Collection::Orders, &orders).await.unwrap();
    let other = payment("8", (0, 1), "PAID", Money("GBP", 1));
    store.upsert_newer(Collection::Payments, &[other]).await.unwrap();
    let (mut after, mut pages) = (None::<String>, Vec::new());
    loop {
        let page = store.page(Collection::Orders, after.as_deref(), 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        pages.push(page);
    }
    let keys: Vec<Vec<&str>> = pages
        .iter()
        .map(|page| page.iter().map(|document| document.key.as_str()).collect())
        .collect();
    assert_eq!(keys, [vec!["1", "10"], vec!["2", "7"], vec!["9"]]);
    assert_eq!(pages[0][0].body, orders[3].body, "byte for byte");
    assert_eq!(pages[0][0].version, orders[3].version);
}

#[tokio::test]
async fn the_first_order_stands_and_a_newer_payment_replaces() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let first = order("1", (0, 7), 100, "GB", Money("GBP", 100));
    let outcome = store
        .insert_first(Collection::Orders, std::slice::from_ref(&first))
        .await
        .unwrap();
    assert_eq!((outcome.applied, outcome.skipped), (1, 0));
    let repeats = [
        order("1", (0, 7), 100, "GB", Money("GBP", 100)),
        order("1", (0, 9), 900, "FR", Money("EUR", 5)),
    ];
    let outcome = store.insert_first(Collection::Orders, &repeats).await.unwrap();
    assert_eq!((outcome.applied, outcome.skipped), (0, 2));

    let paid = payment("1", (0, 4), "PAID", Money("GBP", 100));
    let failed = payment("1", (0, 3), "FAILED", Money("GBP", 100));
    store
        .upsert_newer(
            Collection::Payments,
            &[failed.clone(), paid.clone(), failed.clone()],
        )
        .await
        .unwrap();
    let again = store
        .upsert_newer(Collection::Payments, &[failed, paid.clone()])
        .await
        .unwrap();
    assert_eq!((again.applied, again.skipped), (0, 2), "a replay changes nothing");

    let record = store.order("1").await.unwrap().unwrap();
    assert_eq!(record.order.body, first.body, "byte for byte");
    assert_eq!(record.order.version, first.version);
    assert_eq!(record.payment.unwrap().body, paid.body);
    assert_eq!(record.alert, None);
    assert_eq!(store.order("2").await.unwrap(), None);

    let next_generation = order("1", (1, 0), 50, "US", Money("USD", 3));
    let outcome = store
        .insert_first(Collection::Orders, std::slice::from_ref(&next_generation))
        .await
        .unwrap();
    assert_eq!(outcome.applied, 1, "a topic made anew begins anew");
    assert_eq!(
        store.order("1").await.unwrap().unwrap().order.body,
        next_generation.body
    );
    let summary = store.summary().await.unwrap();
    assert_eq!(
        summary.orders,
        Total {
            documents: 1,
            amounts_minor: BTreeMap::from([("USD".into(), 3)])
        }
    );
    assert_eq!(summary.payments_by_status.keys().collect::<Vec<_>>(), ["PAID"]);
}

#[tokio::test]
async fn recent_orders_come_by_record_time_then_offset_with_payment_and_alert() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let orders = [
        order("old", (0, 50), 1_000, "GB", Money("GBP", 1)),
        order("tie-low", (0, 3), 2_000, "GB", Money("GBP", 1)),
        order("tie-high", (0, 4), 2_000, "GB", Money("GBP", 1)),
        order("new", (0, 1), 3_000, "GB", Money("GBP", 1)),
    ];
    store.insert_first(Collection::Orders, &orders).await.unwrap();
    store
        .upsert_newer(
            Collection::Alerts,
            &[
                alert("new", (0, 1), 3_001, "High"),
                alert("old", (0, 2), 3_000, "Low"),
            ],
        )
        .await
        .unwrap();
    store
        .upsert_newer(
            Collection::Payments,
            &[payment("old", (0, 1), "PAID", Money("GBP", 1))],
        )
        .await
        .unwrap();

    let recent = store.recent_orders(10).await.unwrap();
    assert_eq!(keys(&recent), ["new", "tie-high", "tie-low", "old"]);
    assert!(recent[0].alert.is_some() && recent[0].payment.is_none());
    assert!(recent[1].alert.is_none() && recent[1].payment.is_none());
    assert!(recent[3].alert.is_some() && recent[3].payment.is_some());
    assert_eq!(keys(&store.recent_orders(2).await.unwrap()), ["new", "tie-high"]);
    let alerts = store.alerts(10).await.unwrap();
    assert_eq!(
        alerts.iter().map(|alert| alert.key.as_str()).collect::<Vec<_>>(),
        ["new", "old"]
    );
    assert_eq!(store.alerts(1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn totals_are_exact_beyond_64_bits_and_split_by_currency() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut orders: Vec<_> = (0..3)
        .map(|n| order(&n.to_string(), (0, n), 1, "US", Money("USD", i64::MAX)))
        .collect();
    orders.push(order("3", (0, 3), 25_000, "GB", Money("GBP", 1066668454)));
    store.insert_first(Collection::Orders, &orders).await.unwrap();
    store
        .upsert_newer(
            Collection::Payments,
            &[
                payment("0", (0, 0), "PAID", Money("USD", 10)),
                payment("1", (0, 1), "PAID", Money("GBP", 7)),
                payment("2", (0, 2), "DECLINED", Money("GBP", 5)),
                payment("3", (0, 3), "refunded", Money("GBP", 5)),
            ],
        )
        .await
        .unwrap();
    store
        .upsert_newer(Collection::Alerts, &[alert("0", (0, 0), 26_000, "Critical")])
        .await
        .unwrap();
    let summary = store.summary().await.unwrap();
    // 3 * 9223372036854775807 = 27670116110564327421
    assert_eq!(summary.orders.amounts_minor["USD"], 27_670_116_110_564_327_421);
    assert_eq!(summary.orders.documents, 4);
    assert_eq!(
        summary.orders_by_country["GB"],
        Total {
            documents: 1,
            amounts_minor: gbp(1_066_668_454)
        }
    );
    assert_eq!(summary.orders_by_currency["GBP"].documents, 1);
    assert_eq!(summary.payments.documents, 4);
    assert_eq!(summary.payments_by_status["PAID"].documents, 2);
    assert_eq!(summary.payments_by_status["PAID"].amounts_minor["GBP"], 7);
    assert_eq!(summary.payments_by_status["OTHER"].documents, 1);
    assert_eq!(
        summary.alerts_by_level["Critical"],
        Total {
            documents: 1,
            amounts_minor: BTreeMap::new()
        }
    );
    assert_eq!(summary.newest_order_ms, Some(25_000));
    let slots = store.arrivals(0).await.unwrap();
    assert_eq!(
        slots,
        [
            Arrivals {
                slot_start_ms: 0,
                orders: 3,
                alerts: 0,
                payments: 4
            },
            Arrivals {
                slot_start_ms: 20_000,
                orders: 1,
                alerts: 1,
                payments: 0
            }
        ]
    );
    assert_eq!(store.arrivals(10_000).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_document_that_can_not_be_stored_is_refused_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let batch = [
        document("a", (0, 0), "[1]".into()),
        order("b", (0, 1), 1, "GB", Money("GBP", 1)),
        document("c", (0, 2), "{\"order_id\":1".into()),
        order("b", (0, 3), 1, "GB", Money("GBP", 2)),
        document("", (0, 4), "{}".into()),
    ];
    let outcome = store.insert_first(Collection::Orders, &batch).await.unwrap();
    assert_eq!((outcome.applied, outcome.skipped), (1, 1));
    let refused: Vec<_> = outcome
        .refused
        .iter()
        .map(|(index, error)| (*index, error.kind(), error.code()))
        .collect();
    let poison = StoreErrorKind::Poison;
    assert_eq!(
        refused,
        [
            (0, poison, "not_an_object"),
            (2, poison, "not_an_object"),
            (4, poison, "key_length")
        ]
    );
    assert_eq!(store.summary().await.unwrap().orders.documents, 1);
    let only_bad = store.insert_first(Collection::Orders, &batch[..1]).await.unwrap();
    assert_eq!((only_bad.applied, only_bad.refused.len()), (0, 1));
}

#[tokio::test]
async fn collections_have_key_spaces_of_their_own_and_keys_are_only_text() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for key in [
        "payment::1",
        "agg::x",
        "1",
        "01",
        "1.0",
        "'; DROP TABLE orders; --",
        "%",
        "é",
    ] {
        store
            .insert_first(
                Collection::Orders,
                &[order(key, (0, 0), 1, "GB", Money("GBP", 1))],
            )
            .await
            .unwrap();
        store
            .upsert_newer(
                Collection::Aggregates,
                &[document(key, (0, 0), "{\"count\":1}".into())],
            )
            .await
            .unwrap();
        assert_eq!(store.order(key).await.unwrap().unwrap().order.key, key);
    }
    assert_eq!(store.summary().await.unwrap().orders.documents, 8);
}

#[tokio::test]
async fn many_openers_of_a_file_that_does_not_exist_yet_share_one_store() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let opening: Vec<_> = (0..8)
        .map(|_| {
            let settings = settings.clone();
            tokio::task::spawn_blocking(move || docstore::open(&settings).unwrap())
        })
        .collect();
    let mut stores = Vec::new();
    for store in opening {
        stores.push(store.await.unwrap());
    }
    let writes = stores.iter().enumerate().map(|(number, store)| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let orders: Vec<VersionedDocument> = (0..50_i64)
                .map(|n| order(&format!("{number}-{n}"), (0, n), n, "GB", Money("GBP", 10)))
                .collect();
            for batch in orders.chunks(5) {
                store.insert_first(Collection::Orders, batch).await.unwrap();
            }
        })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap();
    }
    for store in &stores {
        let summary = store.summary().await.unwrap();
        assert_eq!(
            summary.orders,
            Total {
                documents: 400,
                amounts_minor: gbp(4_000)
            }
        );
        store.ping().await.unwrap();
    }
    assert!(stores[0].describe().contains("orderflow.db"));
}

#[tokio::test]
async fn a_list_of_the_largest_documents_ends_early() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let padding = "x".repeat(3 * 1024 * 1024);
    for n in 0..8 {
        let mut large = order(&n.to_string(), (0, n), n, "GB", Money("GBP", 1));
        large.body.insert_str(1, &format!("\"note\":\"{padding}\","));
        store.insert_first(Collection::Orders, &[large]).await.unwrap();
    }
    // 6 times 3 MiB pass 16 MiB.
    assert_eq!(
        keys(&store.recent_orders(1_000).await.unwrap()),
        ["7", "6", "5", "4", "3", "2"]
    );
}

#[tokio::test]
async fn callers_that_give_up_do_not_use_up_the_readers() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store
        .insert_first(
            Collection::Orders,
            &[order("1", (0, 0), 1, "GB", Money("GBP", 1))],
        )
        .await
        .unwrap();
    for _ in 0..200 {
        let given_up = tokio::time::timeout(std::time::Duration::ZERO, store.summary()).await;
        drop(given_up);
    }
    assert_eq!(store.summary().await.unwrap().orders.documents, 1);
}

/// Not a benchmark, only its numbers: `cargo test -p docstore --release -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints a measurement"]
async fn measure_writes_and_reads() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.sqlite.synchronous = docstore::Synchronous::Full;
    settings.sqlite.cache_mb = 64;
    let store = docstore::open(&settings).unwrap();
    let count = 300_000_i64;
    let padding = "x".repeat(200);
    let countries = ["GB", "US", "FR", "DE", "NG", "CA"];
    let documents: Vec<_> = (0..count)
        .map(|n| {
            let mut document = order(
                &n.to_string(),
                (0, n),
                n / 10,
                countries[n as usize % 6],
                Money("GBP", n),
            );
            document.body.insert_str(1, &format!("\"note\":\"{padding}\","));
            document
        })
        .collect();
    println!("{} bytes each", documents[0].body.len());
    for (name, batches) in [("first", 1_000), ("replay", 1_000)] {
        let start = std::time::Instant::now();
        for batch in documents.chunks(batches) {
            store.insert_first(Collection::Orders, batch).await.unwrap();
        }
        println!(
            "{name}: {:.0} documents/s",
            count as f64 / start.elapsed().as_secs_f64()
        );
    }
    let mut times = Vec::new();
    for _ in 0..200 {
        let start = std::time::Instant::now();
        store.summary().await.unwrap();
        times.push(start.elapsed());
    }
    times.sort();
    println!("summary p50 {:?} p99 {:?}", times[100], times[198]);
    for limit in [10, 1_000] {
        let mut times = Vec::new();
        for _ in 0..200 {
            let start = std::time::Instant::now();
            store.recent_orders(limit).await.unwrap();
            times.push(start.elapsed());
        }
        times.sort();
        println!("recent_orders({limit}) p50 {:?} p99 {:?}", times[100], times[198]);
    }
}
