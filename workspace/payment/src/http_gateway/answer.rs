//! What an answer of the gateway means.
//!
//! | answer to a charge | meaning |
//! |---|---|
//! | 2xx | paid, or what the body's `status` says: `PAID`, `DECLINED`; another one is in progress |
//! | 202 without a `status`, 409 | in progress |
//! | 402, 451 | declined |
//! | 401, 403, 404, 405, 406, 407, 415, 421, 426, 501, 505, 511, 1xx, 3xx | it would refuse every order |
//! | 408, 425, 429, other 5xx | not now |
//! | other 4xx: 400, 410, 413, 422 and so on | it refuses this order |
//! | a 2xx that can not be read to its end | no answer: the order may be charged |
//!
//! A lookup answers 200 with a `status`, or 404 when the payment is not known; what concerns one order
//! alone in the table is no answer there.
//!
//! Pure: no clock, no I/O.

use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::gateway::{Found, GatewayError, Settled};

/// No `Retry-After` is believed beyond this.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// So much of the gateway's own words goes into messages.
const MOST_WORDS: usize = 200;

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The header `Retry-After`, read.
    pub retry_after: Option<Duration>,
    /// The body.
    pub body: Body,
}

/// The body of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// As it was sent.
    Whole(Vec<u8>),
    /// It ended early or was too long, with what went wrong.
    Broken(String),
}

/// What a status says about a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Success,
    Accepted,
    InProgress,
    Declined,
    NotNow,
    RefusesUs,
    RefusesOrder,
}

const fn kind(status: u16) -> Kind {
    match status {
        202 => Kind::Accepted,
        200..=299 => Kind::Success,
        402 | 451 => Kind::Declined,
        408 | 425 | 429 => Kind::NotNow,
        409 => Kind::InProgress,
        401 | 403 | 404 | 405 | 406 | 407 | 415 | 421 | 426 | 501 | 505 | 511 => Kind::RefusesUs,
        400..=499 => Kind::RefusesOrder,
        500..=599 => Kind::NotNow,
        _ => Kind::RefusesUs,
    }
}

/// What the answer to a charge means.
///
/// # Errors
/// Everything that is not final; see the table of this module.
pub fn of_charge(answer: &Answer) -> Result<Settled, GatewayError> {
    match kind(answer.status) {
        Kind::Success => match said(answer)? {
            Said::Settled(settled) => Ok(settled),
            Said::Nothing => Ok(Settled::Paid),
            Said::Other => Err(in_progress(answer)),
        },
        Kind::Accepted => match said(answer)? {
            Said::Settled(settled) => Ok(settled),
            Said::Nothing | Said::Other => Err(in_progress(answer)),
        },
        Kind::Declined => Ok(Settled::Declined),
        Kind::InProgress => Err(in_progress(answer)),
        Kind::NotNow => Err(not_now(answer)),
        Kind::RefusesUs => Err(GatewayError::Misconfigured {
            message: words(answer),
        }),
        Kind::RefusesOrder => Err(GatewayError::Refused {
            message: words(answer),
        }),
    }
}

/// What the answer to a lookup means.
///
/// # Errors
/// Everything from which it does not follow whether the order was charged.
pub fn of_lookup(answer: &Answer) -> Result<Found, GatewayError> {
    if answer.status == 404 {
        return Ok(Found::Nothing);
    }
    match kind(answer.status) {
        Kind::Success | Kind::Accepted => match said(answer)? {
            Said::Settled(settled) => Ok(Found::Settled(settled)),
            Said::Other => Err(in_progress(answer)),
            Said::Nothing => Err(GatewayError::NoAnswer {
                message: format!("no `status` in its answer: {}", words(answer)),
            }),
        },
        Kind::InProgress => Err(in_progress(answer)),
        Kind::RefusesUs => Err(GatewayError::Misconfigured {
            message: words(answer),
        }),
        Kind::Declined | Kind::RefusesOrder | Kind::NotNow => Err(not_now(answer)),
    }
}

/// What the body says about the payment.
enum Said {
    Settled(Settled),
    /// A status that is not final.
    Other,
    Nothing,
}

#[derive(Deserialize)]
struct StatusBody {
    status: Option<String>,
}

fn said(answer: &Answer) -> Result<Said, GatewayError> {
    let body = match &answer.body {
        Body::Whole(body) => body,
        Body::Broken(message) => {
            let message = format!("status {}, but {message}", answer.status);
            return Err(GatewayError::NoAnswer { message });
        }
    };
    let status = serde_json::from_slice::<StatusBody>(body)
        .ok()
        .and_then(|body| body.status);
    Ok(match status.as_deref() {
        Some("PAID") => Said::Settled(Settled::Paid),
        Some("DECLINED") => Said::Settled(Settled::Declined),
        Some(_) => Said::Other,
        None => Said::Nothing,
    })
}

fn in_progress(answer: &Answer) -> GatewayError {
    GatewayError::InProgress {
        message: words(answer),
        retry_after: answer.retry_after,
    }
}

fn not_now(answer: &Answer) -> GatewayError {
    GatewayError::Unavailable {
        message: words(answer),
        retry_after: answer.retry_after,
    }
}

/// The gateway's own words on one line, for the person who reads the log or the dead letter.
fn words(answer: &Answer) -> String {
    let status = answer.status;
    let body = match &answer.body {
        Body::Whole(body) => String::from_utf8_lossy(body),
        Body::Broken(message) => message.as_str().into(),
    };
    let line: String = body
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MOST_WORDS)
        .collect();
    match line.trim() {
        "" => format!("status {status}"),
        line => format!("status {status}, {line}"),
    }
}

/// Reads `Retry-After` (RFC 9110, 10.2.3): seconds, or an HTTP date, which is compared with `now`.
/// `None` for what is neither; at most an hour.
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number holds are a long time too.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        date.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status,
            retry_after: Some(Duration::from_secs(7)),
            body: Body::Whole(body.as_bytes().to_vec()),
        }
    }

    /// One word for each outcome.
    fn name<T: std::fmt::Debug>(outcome: Result<T, GatewayError>) -> String {
        match outcome {
            Ok(final_answer) => format!("{final_answer:?}"),
            Err(error) => {
                let text = format!("{error:?}");
                text.split([' ', '{']).next().unwrap_or_default().to_owned()
            }
        }
    }

    #[test]
    fn every_answer_to_a_charge_has_one_meaning() {
        let table = [
            (200, "", "Paid"),
            (200, "thank you", "Paid"),
            (200, "{}", "Paid"),
            (200, r#"{"status":"PAID"}"#, "Paid"),
            (
                201,
                r#"{"id":7,"status":"DECLINED","reason":"limit"}"#,
                "Declined",
            ),
            (200, r#"{"status":"PENDING"}"#, "InProgress"),
            (200, r#"{"status":null}"#, "Paid"),
            (204, "", "Paid"),
            (202, "", "InProgress"),
            (202, r#"{"status":"PAID"}"#, "Paid"),
            (202, r#"{"status":"DECLINED"}"#, "Declined"),
            (402, "", "Declined"),
            (402, r#"{"status":"PAID"}"#, "Declined"),
            (451, "", "Declined"),
            (409, "", "InProgress"),
            (400, "", "Refused"),
            (410, "", "Refused"),
            (413, "", "Refused"),
            (422, "", "Refused"),
            (499, "", "Refused"),
            (408, "", "Unavailable"),
            (425, "", "Unavailable"),
            (429, "", "Unavailable"),
            (500, "", "Unavailable"),
            (502, "", "Unavailable"),
            (503, "", "Unavailable"),
            (504, "", "Unavailable"),
            (599, "", "Unavailable"),
            (401, "", "Misconfigured"),
            (403, "", "Misconfigured"),
            (404, "", "Misconfigured"),
            (405, "", "Misconfigured"),
            (407, "", "Misconfigured"),
            (415, "", "Misconfigured"),
            (501, "", "Misconfigured"),
            (505, "", "Misconfigured"),
            (301, "", "Misconfigured"),
            (302, "", "Misconfigured"),
            (307, "", "Misconfigured"),
            (308, "", "Misconfigured"),
            (101, "", "Misconfigured"),
            (999, "", "Misconfigured"),
        ];
        for (status, body, wanted) in table {
            assert_eq!(
                name(of_charge(&answer(status, body))),
                wanted,
                "{status} with `{body}`"
            );
        }
    }

    #[test]
    fn every_answer_to_a_lookup_has_one_meaning() {
        let table = [
            (200, r#"{"status":"PAID"}"#, "Settled(Paid)"),
            (200, r#"{"status":"DECLINED"}"#, "Settled(Declined)"),
            (200, r#"{"status":"PENDING"}"#, "InProgress"),
            // Without a word about it, a success says nothing about the payment.
            (200, "", "NoAnswer"),
            (204, "", "NoAnswer"),
            (404, "", "Nothing"),
            (409, "", "InProgress"),
            (400, "", "Unavailable"),
            (402, "", "Unavailable"),
            (429, "", "Unavailable"),
            (500, "", "Unavailable"),
            (401, "", "Misconfigured"),
            (403, "", "Misconfigured"),
            (302, "", "Misconfigured"),
        ];
        for (status, body, wanted) in table {
            assert_eq!(
                name(of_lookup(&answer(status, body))),
                wanted,
                "{status} with `{body}`"
            );
        }
    }

    #[test]
    fn a_success_that_breaks_off_says_nothing_about_the_payment() {
        let broken = |status| Answer {
            body: Body::Broken("it ended early".to_owned()),
            ..answer(status, "")
        };
        assert_eq!(name(of_charge(&broken(200))), "NoAnswer");
        assert_eq!(name(of_charge(&broken(202))), "NoAnswer");
        assert_eq!(name(of_lookup(&broken(200))), "NoAnswer");
        // Where the status says it all, the body does not matter.
        assert_eq!(name(of_charge(&broken(402))), "Declined");
        assert_eq!(name(of_charge(&broken(503))), "Unavailable");
    }

    #[test]
    fn the_wish_to_be_asked_later_is_passed_on() {
        let wanted = Some(Duration::from_secs(7));
        assert!(matches!(
            of_charge(&answer(429, "slow down\n")),
            Err(GatewayError::Unavailable { retry_after, message })
                if retry_after == wanted && message == "status 429, slow down"
        ));
        assert!(matches!(
            of_charge(&answer(409, "")),
            Err(GatewayError::InProgress { retry_after, message })
                if retry_after == wanted && message == "status 409"
        ));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        // RFC 9110, 5.6.7: three forms of one instant, 784111777 seconds after 1970 (its own example).
        let instant = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let now = instant - Duration::from_secs(90);
        let table = [
            ("120", Some(120)),
            ("0", Some(0)),
            (" 5 ", Some(5)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(90)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(90)),
            ("Sun Nov  6 08:49:37 1994", Some(90)),
            // In the past: at once. In a year: an hour.
            ("Sun, 06 Nov 1993 08:49:37 GMT", None),
            ("Sat, 06 Nov 1993 08:49:37 GMT", Some(0)),
            ("Mon, 06 Nov 1995 08:49:37 GMT", Some(3_600)),
            ("99999999999999999999999999", Some(3_600)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ];
        for (value, seconds) in table {
            let wanted = seconds.map(Duration::from_secs);
            assert_eq!(retry_after(value, now), wanted, "`{value}`");
        }
    }
}
