//! How far a replay is: a bar on a terminal, a log line every few seconds elsewhere.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

/// How often the progress is shown where there is no terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// What the progress is measured in.
#[derive(Debug, Clone)]
pub(crate) enum Measure {
    /// Orders of a known number.
    Orders(u64),
    /// Bytes of the file, as long as the number of orders is not known.
    Bytes {
        /// Read so far.
        read: Arc<AtomicU64>,
        /// Of the whole file.
        total: u64,
    },
    /// Nothing is known about the end.
    Open,
}

/// Shows the progress of one replay.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    measure: Measure,
    started: Instant,
    shown: Instant,
}

impl Progress {
    /// A progress of its kind for where standard error goes.
    pub(crate) fn new(measure: Measure, now: Instant) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let progress = Self {
            bar,
            measure,
            started: now,
            shown: now,
        };
        progress.style();
        progress
    }

    /// Measures in orders from now on, because their number has become known.
    pub(crate) fn measure_orders(&mut self, total: u64) {
        if !matches!(self.measure, Measure::Orders(_)) {
            self.measure = Measure::Orders(total);
            self.style();
        }
    }

    fn style(&self) {
        let Some(bar) = &self.bar else { return };
        let template = match self.measure {
            Measure::Orders(total) => {
                bar.set_length(total);
                "{bar:30} {human_pos}/{human_len} orders  {msg}  ETA {eta}"
            }
            Measure::Bytes { total, .. } => {
                bar.set_length(total);
                "{bar:30} {bytes}/{total_bytes}  {msg}  ETA {eta}"
            }
            Measure::Open => "{spinner} {msg}  {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
    }

    /// Shows where things stand, when it is time to.
    /// `ended` counts every order that needs nothing more: acknowledged, rejected or skipped.
    pub(crate) fn show(&mut self, acknowledged: u64, rejected: u64, ended: u64, now: Instant) {
        let seconds = now.duration_since(self.started).as_secs_f64();
        let rate = if seconds > 0.0 {
            acknowledged as f64 / seconds
        } else {
            0.0
        };
        if let Some(bar) = &self.bar {
            match &self.measure {
                Measure::Orders(_) => bar.set_position(ended),
                Measure::Bytes { read, .. } => bar.set_position(read.load(Ordering::Relaxed)),
                Measure::Open => {}
            }
            bar.set_message(format!(
                "{acknowledged} acknowledged, {rate:.0}/s, {rejected} rejected"
            ));
        } else if now.duration_since(self.shown) >= PLAIN_INTERVAL {
            self.shown = now;
            let done = match &self.measure {
                Measure::Orders(total) => Some((ended, *total)),
                Measure::Bytes { read, total } => Some((read.load(Ordering::Relaxed), *total)),
                Measure::Open => None,
            }
            .filter(|&(done, total)| done > 0 && total > 0);
            let percent = done.map(|(done, total)| format!("{:.0}", 100.0 * done as f64 / total as f64));
            let eta_s = done.map(|(done, total)| {
                format!("{:.0}", seconds * total.saturating_sub(done) as f64 / done as f64)
            });
            tracing::info!(
                acknowledged,
                rejected,
                rate = format!("{rate:.0}"),
                percent,
                eta_s,
                "replay goes on"
            );
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Prints a line without tearing the bar.
    pub(crate) fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }
}
