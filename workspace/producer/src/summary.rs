//! What came of a replay, for people and for scripts.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;

use serde::Serialize;

/// Counts of a replay. `sent + rejected + skipped` is everything that was read.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    /// The file, or `generator`.
    pub source: String,
    /// Orders handed to Kafka.
    pub sent: u64,
    /// Orders that Kafka has acknowledged.
    pub acknowledged: u64,
    /// Bad lines and orders.
    pub rejected: u64,
    /// Cancellations and totals that are not more than 0.
    pub skipped: u64,
    /// Rejections by code; further bad lines of one order count here each.
    pub rejected_by_code: BTreeMap<String, u64>,
    /// From the first read to the last acknowledgement.
    pub seconds: f64,
    /// Whether everything was read and acknowledged.
    pub finished: bool,
    /// Where the reading stopped when it did not finish: the line of the last order that was sent.
    pub stopped_at_line: Option<u64>,
}

impl Summary {
    /// The summary as one line of JSON.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Writes the JSON so that a reader finds the whole of it or nothing.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let draft = path.with_file_name(name);
        std::fs::write(&draft, self.json() + "\n")?;
        std::fs::rename(&draft, path)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = if self.seconds > 0.0 {
            self.acknowledged as f64 / self.seconds
        } else {
            0.0
        };
        write!(
            formatter,
            "{}: {} sent, {} acknowledged, {} rejected, {} skipped in {:.1} s ({rate:.0} orders/s)",
            self.source, self.sent, self.acknowledged, self.rejected, self.skipped, self.seconds
        )?;
        if self.rejected > 0 {
            let codes: Vec<_> = self
                .rejected_by_code
                .iter()
                .map(|(code, count)| format!("{code} {count}"))
                .collect();
            write!(formatter, "; rejected: {}", codes.join(", "))?;
        }
        Ok(())
    }
}
