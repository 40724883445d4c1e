//! How far the groups are, and the live status.

use std::fmt;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use stream::admin::{GroupPosition, group_positions};
use stream::{KafkaSettings, StreamError, TopicNames};

use crate::topics;

/// Without a terminal a line comes this often.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// One look at the pipeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Alerts and payments are not counted: their topics hold the markers of transactions as well.
    orders: i64,
    fraud_lag: i64,
    payment_lag: i64,
    analytics_lag: i64,
}

impl Look {
    /// Every record is ended by every group.
    pub const fn is_done(&self) -> bool {
        self.fraud_lag == 0 && self.payment_lag == 0 && self.analytics_lag == 0
    }
}

impl fmt::Display for Look {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "orders {}  lag: fraud {}  payment {}  analytics {}",
            self.orders, self.fraud_lag, self.payment_lag, self.analytics_lag
        )
    }
}

/// Looks at all groups. Upstream groups first: what they have ended is in the topics that the group
/// after them is asked about, so a lag of 0 everywhere means that nothing is left.
pub async fn look(kafka: &KafkaSettings) -> Result<Look, StreamError> {
    let topics = TopicNames::default();
    let orders = [topics.orders.clone()];
    let fraud = group_positions(kafka, "fraud-group", &orders).await?;
    // An order that waits for a later attempt is not done.
    let with_retries = [vec![topics.orders.clone()], topics::retries_of(&topics.orders)].concat();
    let payment = group_positions(kafka, "payments-group", &with_retries).await?;
    let all = [
        topics.orders.clone(),
        topics.fraud_alerts.clone(),
        topics.payments.clone(),
    ];
    let analytics = group_positions(kafka, "analytics-group", &all).await?;
    let of_orders = analytics.iter().filter(|((topic, _), _)| *topic == topics.orders);
    Ok(Look {
        orders: of_orders
            .map(|(_, position)| position.end.0 - position.start.0)
            .sum(),
        fraud_lag: fraud.values().map(GroupPosition::lag).sum(),
        payment_lag: payment.values().map(GroupPosition::lag).sum(),
        analytics_lag: analytics.values().map(GroupPosition::lag).sum(),
    })
}

/// Whether anything moves.
pub struct Progress {
    limit: Duration,
    last: Look,
    moved: Instant,
}

impl Progress {
    /// Nothing may stand still for longer than `limit`.
    pub fn new(limit: Duration) -> Self {
        Self {
            limit,
            last: Look::default(),
            moved: Instant::now(),
        }
    }

    /// Takes a look into account.
    pub fn saw(&mut self, look: Look) {
        if look != self.last {
            self.last = look;
            self.moved = Instant::now();
        }
    }

    /// Whether nothing has moved, or nobody could be asked, for too long.
    pub fn has_stalled(&self) -> bool {
        self.moved.elapsed() > self.limit
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.last.fmt(out)
    }
}

/// The live status: one line that changes on a terminal, a line now and then elsewhere.
pub struct Status {
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
}

impl Status {
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise}  {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, last_line: None }
    }

    pub fn show(&mut self, look: &Look) {
        match &self.bar {
            Some(bar) => bar.set_message(look.to_string()),
            None if self.last_line.is_none_or(|last| last.elapsed() >= LINE_INTERVAL) => {
                self.last_line = Some(Instant::now());
                eprintln!("{look}");
            }
            None => {}
        }
    }

    /// A line of its own, beside the status.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Leaves the last status where it stands and the cursor below it.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish();
            eprintln!();
        }
    }
}
