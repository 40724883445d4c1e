//! A fault as JSON. Pure.

use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;
use serde::{Deserialize, Serialize};

use crate::faults::{Fault, Injection};
use crate::versions::SUPPORTED;

/// Kafka's error codes end far below this.
const LAST_ERROR_CODE: i16 = 500;

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FaultBody {
    fault: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delay_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    api: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transactional_id: Option<String>,
    #[serde(default)]
    after: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    times: Option<u32>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    always: bool,
}

impl FaultBody {
    /// What it says, or the sentence that says what is wrong with it.
    pub(super) fn injection(self) -> Result<Injection, String> {
        let fault = self.fault()?;
        if self.always && self.times.is_some() {
            return Err("`times` and `always` exclude each other".to_owned());
        }
        let api = self.api.as_deref().map(api_of).transpose()?;
        Ok(Injection {
            fault,
            api,
            client_id: self.client_id,
            topic: self.topic,
            group: self.group,
            transactional_id: self.transactional_id,
            after: self.after,
            times: if self.always {
                None
            } else {
                Some(self.times.unwrap_or(1))
            },
        })
    }

    fn fault(&self) -> Result<Fault, String> {
        let name = self.fault.as_str();
        let delay = self.delay_ms.map(Duration::from_millis);
        let fault = match name {
            "answer_error" => self
                .error
                .as_deref()
                .map(error_of)
                .transpose()?
                .map(Fault::AnswerError),
            "delay" => delay.map(Fault::Delay),
            "delay_answer" => delay.map(Fault::DelayAnswer),
            "drop_before" => Some(Fault::DropBefore),
            "drop_after" => Some(Fault::DropAfter),
            "stop_reading" => Some(Fault::StopReading),
            _ => {
                return Err(format!(
                    "`fault` is `{name}`, must be `answer_error`, `delay`, `delay_answer`, `drop_before`, \
                     `drop_after` or `stop_reading`"
                ));
            }
        };
        let is_error = name == "answer_error";
        let is_delay = name == "delay" || name == "delay_answer";
        if self.error.is_some() && !is_error {
            return Err(format!("`error` means nothing with `{name}`, leave it out"));
        }
        if self.delay_ms.is_some() && !is_delay {
            return Err(format!("`delay_ms` means nothing with `{name}`, leave it out"));
        }
        let missing = if is_error { "error" } else { "delay_ms" };
        fault.ok_or_else(|| format!("`{missing}` is missing, `{name}` needs it"))
    }
}

impl From<Injection> for FaultBody {
    fn from(injection: Injection) -> Self {
        let (error, delay) = match injection.fault {
            Fault::AnswerError(error) => (Some(error_name(error)), None),
            Fault::Delay(delay) | Fault::DelayAnswer(delay) => (None, Some(delay)),
            _ => (None, None),
        };
        Self {
            fault: injection.fault.name().to_owned(),
            error,
            delay_ms: delay.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
            api: injection.api.map(|api| format!("{api:?}")),
            client_id: injection.client_id,
            topic: injection.topic,
            group: injection.group,
            transactional_id: injection.transactional_id,
            after: injection.after,
            times: injection.times,
            always: injection.times.is_none(),
        }
    }
}

fn api_of(name: &str) -> Result<ApiKey, String> {
    let same = |api: &ApiKey| format!("{api:?}").eq_ignore_ascii_case(name);
    let found = SUPPORTED.iter().map(|supported| supported.key).find(same);
    found.ok_or_else(|| {
        format!("`api` is `{name}`, must be a request that this broker serves, such as `OffsetCommit`")
    })
}

fn error_of(name: &str) -> Result<ResponseError, String> {
    let known = (-1..=LAST_ERROR_CODE).filter_map(ResponseError::try_from_code);
    let mut known = known.filter(|error| !matches!(error, ResponseError::Unknown(_)));
    let found = known.find(|error| error_name(*error) == name);
    found.ok_or_else(|| {
        format!("`error` is `{name}`, must be the name of a Kafka error, such as `NOT_COORDINATOR`")
    })
}

/// As Kafka's documentation writes it: `NOT_COORDINATOR`.
fn error_name(error: ResponseError) -> String {
    if let ResponseError::Unknown(code) = error {
        return code.to_string();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Injection, String> {
        let body: FaultBody = serde_json::from_str(text).map_err(|error| error.to_string())?;
        body.injection()
    }

    fn problem(text: &str) -> String {
        parse(text).unwrap_err()
    }

    #[test]
    fn what_is_left_out_is_once_the_next_request() {
        let injection = parse(r#"{"fault": "drop_after"}"#).unwrap();
        assert_eq!(injection, Fault::DropAfter.on_any_request());
    }

    #[test]
    fn everything_may_be_said_and_is_told_again() {
        let text = r#"{"fault":"answer_error","error":"NOT_COORDINATOR","api":"OffsetCommit",
            "client_id":"c","topic":"t","group":"g","transactional_id":"x","after":3,"times":2}"#;
        let injection = parse(text).unwrap();
        let expected = Fault::AnswerError(ResponseError::NotCoordinator)
            .on(ApiKey::OffsetCommit)
            .of_client("c")
            .of_topic("t")
            .of_group("g")
            .of_transactional_id("x")
            .after(3)
            .times(2);
        assert_eq!(injection, expected);
        let told = serde_json::to_string(&FaultBody::from(injection)).unwrap();
        assert_eq!(parse(&told), Ok(expected));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_field() {
        let cases = [
            (r#"{"fault": "explode"}"#, "`fault` is `explode`"),
            (r#"{"fault": "answer_error"}"#, "`error` is missing"),
            (
                r#"{"fault": "answer_error", "error": "OOPS"}"#,
                "`error` is `OOPS`",
            ),
            (r#"{"fault": "delay"}"#, "`delay_ms` is missing"),
            (
                r#"{"fault": "delay", "delay_ms": 1, "error": "X"}"#,
                "`error` means nothing",
            ),
            (
                r#"{"fault": "drop_after", "delay_ms": 1}"#,
                "`delay_ms` means nothing",
            ),
            (
                r#"{"fault": "drop_after", "api": "Produse"}"#,
                "`api` is `Produse`",
            ),
            (
                r#"{"fault": "drop_after", "times": 1, "always": true}"#,
                "`times` and `always`",
            ),
            (r#"{"fault": "drop_after", "tims": 1}"#, "unknown field `tims`"),
        ];
        for (text, expected) in cases {
            let problem = problem(text);
            assert!(problem.contains(expected), "{text}: {problem}");
        }
    }

    #[test]
    fn errors_have_their_names_from_kafka() {
        for (name, code) in [
            ("UNKNOWN_SERVER_ERROR", -1),
            ("NOT_LEADER_OR_FOLLOWER", 6),
            ("INVALID_TOPIC_EXCEPTION", 17),
            ("KAFKA_STORAGE_ERROR", 56),
            ("PRODUCER_FENCED", 90),
        ] {
            assert_eq!(error_of(name).unwrap().code(), code, "{name}");
        }
    }
}
