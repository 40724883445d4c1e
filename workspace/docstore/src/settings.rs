//! The config section `store`.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The section `store`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// The embedded engine.
    pub sqlite: SqliteSettings,
}

/// The section `store.sqlite`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SqliteSettings {
    /// The file; its folder is made when it is missing. Analytics and report share it.
    pub path: PathBuf,
    /// How long a write or a start waits for another program's lock before it counts as failed.
    pub busy_timeout_ms: u64,
    /// How many reads run at once; more wait.
    pub read_connections: usize,
    /// When a written batch counts as stored.
    pub synchronous: Synchronous,
    /// The size that the file may reach in mebibytes; 0 = as large as the disk.
    pub max_size_mb: u64,
    /// Memory for pages of the file, in mebibytes, for the writer; each reader takes an eighth.
    pub cache_mb: u64,
}

/// When a written batch counts as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Synchronous {
    /// When the disk has it: a batch survives a power failure. Offsets are committed after the
    /// store's answer, so only this keeps the promise that nothing is lost.
    #[default]
    Full,
    /// When the operating system has it: survives a crash of the process, and a power failure may
    /// take the last batches with it, whose offsets are already committed. For tests and trials.
    Normal,
}

impl Default for SqliteSettings {
    fn default() -> Self {
        Self {
            path: PathBuf::from("orderflow-data/orderflow.db"),
            busy_timeout_ms: 5_000,
            read_connections: 4,
            synchronous: Synchronous::Full,
            max_size_mb: 0,
            cache_mb: 64,
        }
    }
}

impl SqliteSettings {
    /// How long a write or a start waits for another program's lock.
    pub fn busy_timeout(&self) -> Duration {
        Duration::from_millis(self.busy_timeout_ms)
    }
}

impl StoreSettings {
    /// The values that can not work, each as dotted path and sentence, for the config loader.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let sqlite = &self.sqlite;
        let mut problems = Vec::new();
        if sqlite.path.as_os_str().is_empty() {
            problems.push(("store.sqlite.path", "empty, must name a file".to_owned()));
        }
        let mut within = |key, value: u64, low: u64, high: u64| {
            if !(low..=high).contains(&value) {
                problems.push((key, format!("`{value}`, must be {low} to {high}")));
            }
        };
        within("store.sqlite.busy_timeout_ms", sqlite.busy_timeout_ms, 1, 60_000);
        within(
            "store.sqlite.read_connections",
            sqlite.read_connections as u64,
            1,
            64,
        );
        within(
            "store.sqlite.max_size_mb",
            sqlite.max_size_mb,
            0,
            16 * 1024 * 1024,
        );
        within("store.sqlite.cache_mb", sqlite.cache_mb, 1, 65_536);
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_problems() {
        assert_eq!(StoreSettings::default().problems(), []);
    }

    #[test]
    fn every_value_that_can_not_work_is_named_with_its_range() {
        let settings = StoreSettings {
            sqlite: SqliteSettings {
                path: PathBuf::new(),
                busy_timeout_ms: 0,
                read_connections: 65,
                cache_mb: 0,
                ..SqliteSettings::default()
            },
        };
        let problems = settings.problems();
        let keys: Vec<_> = problems.iter().map(|(key, _)| *key).collect();
        assert_eq!(
            keys,
            [
                "store.sqlite.path",
                "store.sqlite.busy_timeout_ms",
                "store.sqlite.read_connections",
                "store.sqlite.cache_mb"
            ]
        );
        assert_eq!(problems[2].1, "`65`, must be 1 to 64");
    }
}
