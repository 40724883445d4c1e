//! What `orderflow verify` says about a run.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;
use testkit::Launch;

use crate::fleet::Launcher;

/// Groups may lag a little when all orders are through: documents of payments come last.
const CATCH_UP_S: u64 = 60;
const LIMIT: Duration = Duration::from_secs(300);

/// Lets `orderflow verify` judge topics, offsets and store, and returns its line of JSON.
///
/// # Errors
/// Anything that is not as it should be, with the table that says what.
pub async fn judge(launcher: &Launcher) -> anyhow::Result<Value> {
    let launch = launcher
        .settings()
        .into_iter()
        .fold(Launch::new(&launcher.orderflow), |launch, (key, value)| {
            launch.env(key, value)
        });
    let ended = launch
        .arg("verify")
        .arg("--json")
        .arg("--wait")
        .arg(CATCH_UP_S.to_string())
        .env("ORDERFLOW__ADMIN__LISTEN", "off")
        .run(LIMIT)
        .await;
    keep(&launcher.work.join("verify.log"), &ended.stderr)?;
    match ended.code() {
        Some(0) => {
            let line = ended.stdout.lines().last().unwrap_or_default();
            serde_json::from_str(line).with_context(|| format!("`orderflow verify` printed `{line}`"))
        }
        Some(1) => bail!("`orderflow verify` found:\n{}{}", ended.stderr, ended.stdout),
        _ => bail!(
            "`orderflow verify` ended with {}:\n{}",
            ended.status,
            ended.stderr
        ),
    }
}

fn keep(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| file.display().to_string())
}
