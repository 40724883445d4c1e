//! What a gateway charged, from a gateway that tells it.

use serde::Deserialize;
use service::Exit;

use super::judge::{Charge, Judge};

/// The longest line that is an answer.
const MOST_LINE_BYTES: usize = 64 * 1024;
/// How long the gateway may take for its next part of the answer.
const ANSWER_LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

#[derive(Debug, Deserialize)]
struct Line {
    key: String,
    order_id: OrderId,
    charged: Times,
}

/// An id in the type that the order had.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OrderId {
    Text(String),
    Integer(i64),
}

/// How often, or whether.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Times {
    Number(u64),
    Whether(bool),
}

/// Tells the judge of every charge.
pub(super) async fn charges(url: &str, judge: &mut Judge) -> Result<(), Exit> {
    let url = format!("{}/charges", url.trim_end_matches('/'));
    let failed =
        |error: reqwest::Error| Exit::unavailable(format!("`--gateway`: `{url}`: {}", causes(&error)));
    service::prepare_tls();
    let client = reqwest::Client::builder()
        .connect_timeout(ANSWER_LIMIT)
        .read_timeout(ANSWER_LIMIT)
        .build()
        .map_err(failed)?;
    let answer = client.get(&url).send().await.map_err(failed)?;
    let mut answer = answer.error_for_status().map_err(failed)?;
    judge.has_charges();
    let (mut buffer, mut number) = (Vec::new(), 0_u64);
    loop {
        let chunk = answer.chunk().await.map_err(failed)?;
        let ended = chunk.is_none();
        buffer.extend_from_slice(chunk.as_deref().unwrap_or(b"\n"));
        let mut begin = 0;
        while let Some(length) = buffer
            .get(begin..)
            .and_then(|rest| rest.iter().position(|byte| *byte == b'\n'))
        {
            number += 1;
            let line = buffer.get(begin..begin + length).unwrap_or_default();
            begin += length + 1;
            tell(judge, line).map_err(|error| {
                Exit::unavailable(format!("`--gateway`: `{url}`: line {number}: {error}"))
            })?;
        }
        buffer.drain(..begin);
        if buffer.len() > MOST_LINE_BYTES {
            let message = format!(
                "`--gateway`: `{url}`: line {} is longer than {MOST_LINE_BYTES} bytes",
                number + 1
            );
            return Err(Exit::unavailable(message));
        }
        if ended {
            return Ok(());
        }
    }
}

fn tell(judge: &mut Judge, line: &[u8]) -> Result<(), serde_json::Error> {
    if line.trim_ascii().is_empty() {
        return Ok(());
    }
    let line: Line = serde_json::from_slice(line)?;
    let order_id = match line.order_id {
        OrderId::Text(text) => text,
        OrderId::Integer(number) => number.to_string(),
    };
    let times = match line.charged {
        Times::Number(times) => times,
        Times::Whether(charged) => u64::from(charged),
    };
    let charge = Charge {
        key: &line.key,
        order_id: &order_id,
        times,
    };
    judge.charge(charge);
    Ok(())
}

/// An error of the client with its causes, which it leaves out by itself.
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
