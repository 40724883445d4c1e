//! A run that is right, and what breaks it.

mod breaks;
mod run;

use domain::PaymentStatus;
use proptest::prelude::*;
use stream::position::Partition;

use super::*;
use crate::verify::findings::Check;
use breaks::BREAKS;
use run::{Run, letter_headers, order_text, payment};

#[test]
fn a_run_that_is_right_holds_and_every_check_looked_at_something() {
    let findings = Run::right().judged();
    assert_eq!(findings.violations(), 0, "{findings}");
    let line = findings.to_json();
    assert_eq!(line["not_judged"], serde_json::json!([]));
    for check in Check::ALL {
        let looked = line["checks"][check.name()]["judged"].as_u64().expect("judged");
        // These two count what is wrong alone.
        let counts_wrong_alone = [Check::NotFinished, Check::DocumentUnknown, Check::ChargeUnpaid];
        assert!(
            looked > 0 || counts_wrong_alone.contains(&check),
            "{}",
            check.name()
        );
    }
    let wanted = serde_json::json!({"records": 27, "orders": 23, "orders_outside": 0, "probes": 1, "refused": 1,
        "repeats": 1, "conflicting_repeats": 1, "repeats_across_partitions": 0, "paid": 19, "declined": 2,
        "failed": 3, "alerts": 6, "dead_letters": 8, "dead_letters_replayed": 2, "dead_letters_discarded": 1,
        "documents": 23, "documents_of_earlier_topics": 1,
        "charges": 19, "of_deleted_orders": 0});
    assert_eq!(line["counts"], wanted);
}

#[test]
fn every_violation_is_found_and_nothing_else() {
    for (what, break_it, wanted) in BREAKS {
        let mut run = Run::right();
        break_it(&mut run);
        let findings = run.judged();
        let found: Vec<Check> = findings.violated().map(|(check, _)| check).collect();
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable();
        assert_eq!(found, wanted, "{what}: {findings}");
    }
    let broken: Vec<Check> = BREAKS
        .iter()
        .flat_map(|(.., checks)| checks.iter().copied())
        .collect();
    for check in Check::ALL {
        assert!(broken.contains(&check), "nothing breaks `{}`", check.name());
    }
}

#[test]
fn repeats_across_partitions_are_counted_apart_and_fail_nothing() {
    let mut run = Run::right();
    // Order 4 stands in partition 1; after the topic grew, its repeat came to partition 2 and was settled there.
    run.orders.add(2, order_text(4, 5_000), Vec::new());
    run.payments
        .add(2, payment(4, 5_000, PaymentStatus::Paid), Vec::new());
    let findings = run.judged();
    assert_eq!(findings.violations(), 0, "{findings}");
    assert_eq!(findings.counted(Count::RepeatsAcrossPartitions), 1);
    // Under another id it would have been charged again.
    run.payments.again("4", "pay_", "pay_0");
    let last = run.payments.0.len() - 1;
    run.payments.0[last].at.partition = Partition(2);
    run.payments.0.remove(last - 1);
    let violated: Vec<_> = run.judged().violated().collect();
    assert_eq!(violated, [(Check::PaymentDiffers, 1)]);
}

#[test]
fn what_stood_in_a_retry_topic_by_itself_is_explained_where_it_stood_there() {
    let mut run = Run::right();
    let retry = "orders.payments-group.retry.5s";
    let stray = |offset| {
        let mut headers = letter_headers("payments-group", "no_origin", Spot { partition: 0, offset });
        headers[0].1 = retry.as_bytes().to_vec();
        headers
    };
    let letters = run.letters.entry("payments-group").or_default();
    letters.add(0, "{", stray(0));
    run.parked_extent = Some((retry, Extent { begin: 0, end: 1 }));
    assert_eq!(run.judged().violations(), 0, "{}", run.judged());
    run.letters
        .entry("payments-group")
        .or_default()
        .add(0, "{", stray(1));
    let violated: Vec<_> = run.judged().violated().collect();
    assert_eq!(violated, [(Check::DeadLetterUnexplained, 1)]);
}

#[test]
fn outside_of_the_range_nothing_is_judged() {
    let mut run = Run::right();
    let time_of = |run: &Run, id: &str| run.orders.0[run.orders.position(id)].record_time_ms;
    run.payments.remove("4");
    run.range.from_ms = Some(time_of(&run, "4") + 1);
    assert_eq!(run.judged().violations(), 0, "{}", run.judged());
    run.range = Range {
        from_ms: None,
        to_ms: Some(time_of(&run, "4") - 1),
    };
    assert_eq!(run.judged().violations(), 0, "{}", run.judged());
    run.range = Range {
        from_ms: Some(time_of(&run, "4")),
        to_ms: Some(time_of(&run, "4")),
    };
    let violated: Vec<_> = run.judged().violated().collect();
    assert_eq!(violated, [(Check::PaymentMissing, 1)]);
}

#[test]
fn outputs_of_orders_that_were_deleted_are_counted_apart() {
    let mut run = Run::right();
    let gone = run.orders.remove("1");
    run.orders
        .0
        .retain(|record| record.at != gone.at || record.offset.0 > 8);
    run.begin = 1;
    let findings = run.judged();
    let violated: Vec<Check> = findings.violated().map(|(check, _)| check).collect();
    // Order 1 has a payment whose input was deleted; the others of the partition were not at offset 0.
    assert!(!violated.contains(&Check::PaymentMissing), "{findings}");
    assert!(findings.counted(Count::OfDeletedOrders) >= 1, "{findings}");
    let unknown = findings
        .violated()
        .find(|(check, _)| *check == Check::PaymentUnknown);
    assert_eq!(unknown.map(|(_, count)| count), Some(6), "{findings}");
}

proptest! {
    /// Whatever order is hit, a lost and a doubled effect are found, and told with the order's place.
    #[test]
    fn whichever_order_loses_or_doubles_its_payment_is_named(id in 1_i64..=20, doubled: bool) {
        let mut run = Run::right();
        let text = id.to_string();
        let spot = run.orders.0[run.orders.position(&text)].clone();
        let wanted = if doubled {
            run.payments.again(&text, "payment_id", "payment_id");
            Check::PaymentDoubled
        } else {
            run.payments.remove(&text);
            Check::PaymentMissing
        };
        let findings = run.judged();
        let mut violated: Vec<_> = findings.violated().collect();
        // A declined order has no charge either way.
        violated.retain(|(check, _)| *check != Check::ChargeMissing);
        prop_assert_eq!(violated, vec![(wanted, 1)]);
        let line = findings.to_json();
        let example = &line["checks"][wanted.name()]["examples"][0];
        prop_assert_eq!(example["id"].as_str(), Some(text.as_str()));
        if !doubled {
            prop_assert_eq!(example["offset"].as_i64(), Some(spot.offset.0));
            prop_assert_eq!(example["partition"].as_i64(), Some(i64::from(spot.at.partition.0)));
        }
    }
}
