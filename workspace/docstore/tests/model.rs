//! Random interleavings and replays of versioned writes equal a model.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use std::collections::BTreeMap;

use common::{Money, order, payment};
use docstore::{Collection, DocumentStore, Version, VersionedDocument};
use proptest::prelude::*;

/// One document of either collection: few keys and versions, so that they meet often.
#[derive(Clone, Debug)]
struct Write {
    is_order: bool,
    key: u8,
    version: (i64, i64),
    minor: i64,
    word: usize,
}

impl Write {
    fn document(&self) -> VersionedDocument {
        let (key, version) = (format!("k{}", self.key), self.version);
        let money = Money(["GBP", "USD"][self.word % 2], self.minor);
        match self.is_order {
            true => order(
                &key,
                version,
                version.1 * 7_000,
                ["GB", "FR", "US"][self.word % 3],
                money,
            ),
            false => payment(
                &key,
                version,
                ["PAID", "DECLINED", "FAILED"][self.word % 3],
                money,
            ),
        }
    }
}

fn write() -> impl Strategy<Value = Write> {
    (
        any::<bool>(),
        0..5_u8,
        (0..3_i64, 0..6_i64),
        0..i64::MAX,
        0..6_usize,
    )
        .prop_map(|(is_order, key, version, minor, word)| Write {
            is_order,
            key,
            version,
            minor,
            word,
        })
}

/// What the store must hold: the writes that stand, by key.
#[derive(Default)]
struct Model {
    orders: BTreeMap<String, (VersionedDocument, Write)>,
    payments: BTreeMap<String, (VersionedDocument, Write)>,
}

impl Model {
    fn write(&mut self, write: &Write) -> bool {
        let document = write.document();
        let held = if write.is_order {
            &mut self.orders
        } else {
            &mut self.payments
        };
        let stands = held
            .get(&document.key)
            .is_some_and(|(stored, _)| match write.is_order {
                true => stored.version.generation >= document.version.generation,
                false => stored.version >= document.version,
            });
        if !stands {
            held.insert(document.key.clone(), (document, write.clone()));
        }
        !stands
    }

    fn count(
        held: &BTreeMap<String, (VersionedDocument, Write)>,
        name: impl Fn(&Write) -> &'static str,
    ) -> BTreeMap<(String, String), (u64, i128)> {
        let mut totals = BTreeMap::new();
        for (_, write) in held.values() {
            let currency = ["GBP", "USD"][write.word % 2];
            let total: &mut (u64, i128) = totals
                .entry((name(write).to_owned(), currency.to_owned()))
                .or_default();
            total.0 += 1;
            total.1 += i128::from(write.minor);
        }
        totals
    }
}

fn flatten(group: &docstore::Group) -> BTreeMap<(String, String), i128> {
    group
        .iter()
        .flat_map(|(name, total)| {
            total
                .amounts_minor
                .iter()
                .map(move |(code, sum)| ((name.clone(), code.clone()), *sum))
        })
        .collect()
}

async fn equals(store: &dyn DocumentStore, model: &Model) {
    let recent = store.recent_orders(100).await.unwrap();
    assert_eq!(recent.len(), model.orders.len());
    for record in &recent {
        let (expected, _) = &model.orders[&record.order.key];
        assert_eq!(
            (&record.order.body, record.order.version),
            (&expected.body, expected.version)
        );
        let payment = model
            .payments
            .get(&record.order.key)
            .map(|(document, _)| document.body.clone());
        assert_eq!(
            record.payment.as_ref().map(|payment| payment.body.clone()),
            payment
        );
    }
    let mut newest_first: Vec<(i64, Version)> = recent
        .iter()
        .map(|record| (record.order.version.offset * 7_000, record.order.version))
        .collect();
    newest_first.sort_by_key(|(time, version)| std::cmp::Reverse((*time, version.offset)));
    let times: Vec<_> = recent.iter().map(|record| record.order.version.offset).collect();
    assert_eq!(
        times,
        newest_first
            .iter()
            .map(|(_, version)| version.offset)
            .collect::<Vec<_>>()
    );

    let summary = store.summary().await.unwrap();
    let sums = |counts: &BTreeMap<(String, String), (u64, i128)>| -> BTreeMap<_, _> {
        counts
            .iter()
            .map(|(name, total)| (name.clone(), total.1))
            .collect()
    };
    let countries = Model::count(&model.orders, |write| ["GB", "FR", "US"][write.word % 3]);
    let statuses = Model::count(&model.payments, |write| {
        ["PAID", "DECLINED", "FAILED"][write.word % 3]
    });
    assert_eq!(flatten(&summary.orders_by_country), sums(&countries));
    assert_eq!(flatten(&summary.payments_by_status), sums(&statuses));
    assert_eq!(summary.orders.documents as usize, model.orders.len());
    assert_eq!(summary.payments.documents as usize, model.payments.len());
    let arrived = store.arrivals(i64::MIN).await.unwrap();
    assert_eq!(
        arrived.iter().map(|slot| slot.orders).sum::<u64>() as usize,
        model.orders.len()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_batches_with_replays_and_restarts_equals_the_model(
        batches in prop::collection::vec((prop::collection::vec(write(), 1..12), any::<bool>(), 0..8_u8), 1..14)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let mut store = common::open(folder.path());
            let mut model = Model::default();
            for (batch, replay, restart) in &batches {
                for _ in 0..=usize::from(*replay) {
                    for is_order in [true, false] {
                        let writes: Vec<_> = batch.iter().filter(|write| write.is_order == is_order).collect();
                        let documents: Vec<_> = writes.iter().map(|write| write.document()).collect();
                        let applied = writes.iter().filter(|write| model.write(write)).count();
                        let outcome = match is_order {
                            true => store.insert_first(Collection::Orders, &documents).await.unwrap(),
                            false => store.upsert_newer(Collection::Payments, &documents).await.unwrap(),
                        };
                        assert_eq!((outcome.applied, outcome.skipped), (applied, documents.len() - applied));
                    }
                }
                if *restart == 0 {
                    drop(store);
                    store = common::open(folder.path());
                }
            }
            equals(store.as_ref(), &model).await;
        });
    }
}
