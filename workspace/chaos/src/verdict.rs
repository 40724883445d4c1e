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

/// Lets `orderflow verify` judge topics, offsets, store and charges, and returns its line of JSON. So many
/// different orders were `sent`.
///
/// # Errors
/// Anything that is not as it should be, with the table that says what. No fault of a run lasts as long
/// as the attempts of an order, so that one that was given up is an error here.
pub async fn judge(launcher: &Launcher, sent: u64) -> anyhow::Result<Value> {
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
        .arg("--gateway")
        .arg(&launcher.gateway)
        .env("ORDERFLOW__ADMIN__LISTEN", "off")
        .run(LIMIT)
        .await;
    keep(&launcher.work.join("verify.log"), &ended.stderr)?;
    match ended.code() {
        Some(0) => {
            let line = ended.stdout.lines().last().unwrap_or_default();
            let verdict =
                serde_json::from_str(line).with_context(|| format!("`orderflow verify` printed `{line}`"))?;
            all_are_settled(&verdict, sent)?;
            Ok(verdict)
        }
        Some(1) => bail!("`orderflow verify` found:\n{}{}", ended.stderr, ended.stdout),
        _ => bail!(
            "`orderflow verify` ended with {}:\n{}",
            ended.status,
            ended.stderr
        ),
    }
}

fn all_are_settled(verdict: &Value, sent: u64) -> anyhow::Result<()> {
    let count = |name: &str| {
        let count = verdict
            .pointer(&format!("/counts/{name}"))
            .and_then(Value::as_u64);
        count.with_context(|| format!("the verdict does not count `{name}`: {verdict}"))
    };
    let (orders, paid, declined) = (count("orders")?, count("paid")?, count("declined")?);
    // `orderflow verify` knows of no order that the broker has lost.
    if orders != sent {
        bail!("{sent} orders were sent and acknowledged, {orders} are there");
    }
    if paid + declined != orders {
        bail!("of {orders} orders {paid} were paid and {declined} declined: the others were given up");
    }
    Ok(())
}

fn keep(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_order_that_was_given_up_or_lost_is_an_error() {
        let verdict = |paid| json!({"counts": {"orders": 10, "paid": paid, "declined": 1, "failed": 1}});
        assert!(all_are_settled(&verdict(9), 10).is_ok());
        assert!(all_are_settled(&verdict(8), 10).is_err());
        assert!(all_are_settled(&verdict(9), 11).is_err(), "one is lost");
        assert!(all_are_settled(&json!({}), 0).is_err());
    }
}
