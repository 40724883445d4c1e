//! A connection that speaks in the words of the scenarios.
//!
//! What an engine answers because it is busy (a coordinator that still loads, markers that are still
//! written) is asked again up to [`DEADLINE`] and is no part of an outcome, except through the
//! functions whose names say `at_once`.

mod configs;
mod groups;
mod listings;
mod logs;
mod topics;
mod transactions;

pub use configs::{Change, Changes};
pub use groups::{Joined, Member};
pub use logs::{Isolation, Limits, Place, found_at, placed};
pub use transactions::Identity;

use std::fmt::Debug;
use std::time::{Duration, Instant};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{FindCoordinatorRequest, TopicName};
use kafka_protocol::protocol::{Request, StrBytes};

use crate::wire::{DEADLINE, Wire};

const RETRY_EVERY: Duration = Duration::from_millis(10);

pub const CONCURRENT_TRANSACTIONS: i16 = 51;
/// COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR.
const NOT_READY: [i16; 3] = [14, 15, 16];

/// Which kind of coordinator is looked for.
#[derive(Clone, Copy)]
pub enum Coordinator {
    Group = 0,
    Transaction = 1,
}

pub struct Client {
    pub wire: Wire,
}

impl Client {
    pub async fn connect(address: &str) -> Self {
        Self {
            wire: Wire::to(address).await,
        }
    }

    pub async fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.wire.call(version, request).await
    }

    /// Whether an answer begins to arrive within that time.
    pub async fn is_answered_within(&mut self, wait: Duration) -> bool {
        let mut byte = [0];
        let peeked = tokio::time::timeout(wait, self.wire.stream.peek(&mut byte)).await;
        peeked.is_ok_and(|peeked| peeked.is_ok())
    }

    /// Asks until the answer is not one of a coordinator that is not ready, nor of a transaction
    /// that is still ending.
    async fn patiently<R: Request<Response: Debug>>(
        &mut self,
        version: i16,
        request: &R,
        code: impl Fn(&R::Response) -> i16,
    ) -> R::Response {
        self.until(version, request, |answer| {
            let code = code(answer);
            code != CONCURRENT_TRANSACTIONS && !NOT_READY.contains(&code)
        })
        .await
    }

    /// Asks until the answer is as wanted; panics at the deadline.
    pub async fn until<R: Request<Response: Debug>>(
        &mut self,
        version: i16,
        request: &R,
        done: impl Fn(&R::Response) -> bool,
    ) -> R::Response {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let answer = self.call(version, request).await;
            if done(&answer) {
                return answer;
            }
            assert!(
                Instant::now() < deadline,
                "still not the wanted answer: {answer:?}"
            );
            tokio::time::sleep(RETRY_EVERY).await;
        }
    }

    /// Waits until the coordinator of a group or transactional id is there. There is one broker, so
    /// it is never asked where that is.
    pub async fn until_coordinated(&mut self, kind: Coordinator, key: &str) {
        let request = FindCoordinatorRequest::default()
            .with_key_type(kind as i8)
            .with_coordinator_keys(vec![text(key)]);
        let answer = self
            .patiently(4, &request, |answer| answer.coordinators[0].error_code)
            .await;
        assert_eq!(
            answer.coordinators[0].error_code, 0,
            "a coordinator is found: {answer:?}"
        );
    }
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

/// The protocol's name of an error code: `NONE`, `INVALID_TXN_STATE`.
pub fn error(code: i16) -> String {
    let Some(error) = ResponseError::try_from_code(code) else {
        return "NONE".to_owned();
    };
    if let ResponseError::Unknown(code) = error {
        // Newer than the crate's list.
        return match code {
            120 => "TRANSACTION_ABORTABLE".to_owned(),
            _ => format!("ERROR_{code}"),
        };
    }
    let mut name = String::new();
    for letter in error.to_string().chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// The names of several codes, in order.
pub fn errors(codes: impl IntoIterator<Item = i16>) -> String {
    let names: Vec<String> = codes.into_iter().map(error).collect();
    names.join(", ")
}
