//! The counts of a run, read back from topics and store: never what a writer says about itself.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::{Currency, MinorUnits, Money, Order, Payment, PaymentStatus};
use serde_json::{Value, json};
use service::Exit;
use stream::reader::read_to_end;
use stream::{KafkaSettings, Record, TopicNames};
use tokio::task::JoinSet;

use crate::demo::plan::Plan;
use crate::dlq::mark::is_mark;
use crate::topics;

/// Nothing may come for so long before a topic's end is reached.
const IDLE_LIMIT: Duration = Duration::from_secs(20);

/// What a run came to.
#[derive(Debug, Default)]
pub struct Counts {
    orders: u64,
    distinct_orders: u64,
    rejected: u64,
    skipped: u64,
    alerts: u64,
    payments: [u64; 3],
    documents: u64,
    /// Dead letters in all their topics.
    pub dead_letters: u64,
    amounts: BTreeMap<String, String>,
    seconds: f64,
}

impl Counts {
    /// One line of JSON.
    pub fn to_json(&self) -> Value {
        let payments: serde_json::Map<String, Value> = PaymentStatus::ALL
            .iter()
            .zip(self.payments)
            .map(|(status, count)| (status.as_str().to_owned(), json!(count)))
            .collect();
        json!({
            "orders": self.orders,
            "distinct_orders": self.distinct_orders,
            "rejected": self.rejected,
            "skipped": self.skipped,
            "alerts": self.alerts,
            "payments": payments,
            "documents": self.documents,
            "dead_letters": self.dead_letters,
            "amounts": self.amounts,
            "seconds": (self.seconds * 1_000.0).round() / 1_000.0,
        })
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "orders        {} ({} distinct)",
            self.orders, self.distinct_orders
        )?;
        writeln!(
            out,
            "not taken     {} rejected, {} skipped",
            self.rejected, self.skipped
        )?;
        writeln!(out, "alerts        {}", self.alerts)?;
        for (status, count) in PaymentStatus::ALL.iter().zip(self.payments) {
            writeln!(out, "{:<14}{count}", status.as_str().to_lowercase())?;
        }
        writeln!(out, "documents     {}", self.documents)?;
        writeln!(out, "dead letters  {}", self.dead_letters)?;
        for (currency, amount) in &self.amounts {
            writeln!(out, "amount        {amount} {currency}")?;
        }
        write!(out, "seconds       {:.3}", self.seconds)
    }
}

#[derive(Default)]
struct Orders {
    ids: HashSet<String>,
    highest_id: Option<i64>,
    sums: BTreeMap<Currency, i128>,
}

impl Orders {
    fn add(&mut self, record: &Record<'_>) {
        let Some(order) = record
            .value
            .and_then(|value| Order::decode(value, Currency::USD).ok())
        else {
            return;
        };
        if let Ok(id) = order.id.text().parse::<i64>() {
            self.highest_id = self.highest_id.max(Some(id));
        }
        // Of repeated orders the first stands.
        if self.ids.insert(order.id.text().to_owned()) {
            *self.sums.entry(order.money.currency).or_default() += i128::from(order.money.minor.0);
        }
    }
}

async fn collect<T: Default + Send + 'static>(
    kafka: &KafkaSettings,
    topic: &str,
    each: fn(&mut T, &Record<'_>),
) -> Result<(u64, T), Exit> {
    let collected = Arc::new(Mutex::new(T::default()));
    let shared = Arc::clone(&collected);
    let count = read_to_end(kafka, topic, IDLE_LIMIT, move |record| {
        each(&mut shared.lock().unwrap_or_else(PoisonError::into_inner), record);
    });
    let count = count.await?;
    let collected = std::mem::take(&mut *collected.lock().unwrap_or_else(PoisonError::into_inner));
    Ok((count, collected))
}

fn add_letter(count: &mut u64, record: &Record<'_>) {
    *count += u64::from(!is_mark(record));
}

/// The id after the highest that is anywhere, so that a second run goes on where the first ended.
pub async fn next_order_id(kafka: &KafkaSettings, plan: &Plan) -> Result<i64, Exit> {
    let topics = TopicNames::default();
    let (_, orders): (u64, Orders) = collect(kafka, &topics.orders, Orders::add).await?;
    let stored = highest_stored_id(plan).await?;
    let highest = orders.highest_id.max(stored);
    Ok(highest.map_or(1, |id| id.max(0).saturating_add(1)))
}

async fn highest_stored_id(plan: &Plan) -> Result<Option<i64>, Exit> {
    if !plan.store().sqlite.path.exists() {
        return Ok(None);
    }
    let store = docstore::open(&plan.store()).map_err(|error| Exit::unavailable(error.to_string()))?;
    // The generator counts up, so the newest orders carry the highest ids.
    let recent = store
        .recent_orders(1_000)
        .await
        .map_err(|error| Exit::unavailable(error.to_string()))?;
    Ok(recent
        .iter()
        .filter_map(|record| record.order.key.parse::<i64>().ok())
        .max())
}

/// Counts everything.
pub async fn count(kafka: &KafkaSettings, plan: &Plan, seconds: f64) -> Result<Counts, Exit> {
    let topics = TopicNames::default();
    let mut letters = JoinSet::new();
    for spec in topics::built_in().map_err(|error| Exit::bug(format!("{error:#}")))? {
        if spec.name.ends_with(".dlq") {
            let kafka = kafka.clone();
            letters.spawn(async move { collect(&kafka, &spec.name, add_letter).await });
        }
    }
    let (orders, alerts, payments) = tokio::try_join!(
        collect(kafka, &topics.orders, Orders::add),
        collect(kafka, &topics.fraud_alerts, |(), _| ()),
        collect(kafka, &topics.payments, add_payment),
    )?;
    let ((orders, collected), (alerts, ()), (_, payments)) = (orders, alerts, payments);
    let mut dead_letters = 0;
    while let Some(counted) = letters.join_next().await {
        dead_letters += counted.map_err(|error| Exit::bug(error.to_string()))??.1;
    }
    let store = docstore::open(&plan.store()).map_err(|error| Exit::unavailable(error.to_string()))?;
    let summary = store
        .summary()
        .await
        .map_err(|error| Exit::unavailable(error.to_string()))?;
    let (rejected, skipped) = not_taken(plan);
    Ok(Counts {
        orders,
        distinct_orders: collected.ids.len() as u64,
        rejected,
        skipped,
        alerts,
        payments,
        documents: summary.orders.documents,
        dead_letters,
        amounts: collected
            .sums
            .into_iter()
            .map(|(currency, sum)| (currency.to_string(), major(sum, currency)))
            .collect(),
        seconds,
    })
}

fn add_payment(counts: &mut [u64; 3], record: &Record<'_>) {
    let payment = record.value.and_then(|value| Payment::decode(value).ok());
    let position = payment.and_then(|payment| {
        PaymentStatus::ALL
            .iter()
            .position(|status| *status == payment.status)
    });
    if let Some(count) = position.and_then(|index| counts.get_mut(index)) {
        *count += 1;
    }
}

/// What the producer did not send has left no trace elsewhere: its own report tells.
fn not_taken(plan: &Plan) -> (u64, u64) {
    let text = std::fs::read_to_string(plan.producer_report()).unwrap_or_default();
    let report: Value = serde_json::from_str(&text).unwrap_or_default();
    let count = |name: &str| report.get(name).and_then(Value::as_u64).unwrap_or(0);
    (count("rejected"), count("skipped"))
}

/// A sum of minor units in major units, exactly.
fn major(sum: i128, currency: Currency) -> String {
    i64::try_from(sum).map_or_else(
        // More than an i64 holds: the sum in minor units, named as such.
        |_| format!("{sum} minor units"),
        |minor| {
            Money {
                minor: MinorUnits(minor),
                currency,
            }
            .to_string()
        },
    )
}
