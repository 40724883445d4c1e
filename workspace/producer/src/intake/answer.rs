//! Answers of the intake.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::{AdmittedOrder, Rejection, RejectionCode};
use serde_json::{Value, json};
use stream::publisher::Acknowledged;

use super::RETRY_AFTER_SECONDS;

/// What became of one order.
#[derive(Debug)]
pub(super) enum OrderAnswer {
    Taken(Value),
    Refused(Problem),
}

impl OrderAnswer {
    /// The order is safe at this place.
    pub(super) fn taken(order: &AdmittedOrder, topic: &str, at: Acknowledged) -> Self {
        // The id in the type that it came in.
        let id = serde_json::from_slice::<Value>(&order.value)
            .ok()
            .and_then(|mut value| value.get_mut("order_id").map(Value::take));
        let id = id.unwrap_or_else(|| Value::from(order.key.clone()));
        Self::Taken(
            json!({"order_id": id, "topic": topic, "partition": at.partition.0, "offset": at.offset.0}),
        )
    }

    /// The answer to a request with this order alone.
    pub(super) fn alone(self) -> Response {
        match self {
            Self::Taken(value) => json_response(StatusCode::CREATED, "application/json", &value),
            Self::Refused(problem) => problem.response(),
        }
    }
}

/// The answer to a request with several orders.
pub(super) fn together(answers: Vec<OrderAnswer>) -> Response {
    let problems: Vec<&Problem> = answers
        .iter()
        .filter_map(|answer| match answer {
            OrderAnswer::Refused(problem) => Some(problem),
            OrderAnswer::Taken(_) => None,
        })
        .collect();
    if problems.is_empty() {
        let taken = answers.into_iter().filter_map(|answer| match answer {
            OrderAnswer::Taken(value) => Some(value),
            OrderAnswer::Refused(_) => None,
        });
        return json_response(StatusCode::CREATED, "application/json", &taken.collect());
    }
    if problems.len() == answers.len() {
        return none_taken(&problems);
    }
    let each = answers.iter().map(|answer| match answer {
        OrderAnswer::Taken(value) => {
            let mut value = value.clone();
            if let Some(fields) = value.as_object_mut() {
                fields.insert("status".to_owned(), json!(StatusCode::CREATED.as_u16()));
            }
            value
        }
        OrderAnswer::Refused(problem) => problem.json(),
    });
    let indexed = each.enumerate().map(|(index, mut value)| {
        if let Some(fields) = value.as_object_mut() {
            fields.insert("index".to_owned(), json!(index));
        }
        value
    });
    json_response(StatusCode::MULTI_STATUS, "application/json", &indexed.collect())
}

/// None was taken: where Kafka is the reason for one of them, the whole request may be sent again.
fn none_taken(problems: &[&Problem]) -> Response {
    let unavailable = problems
        .iter()
        .find(|problem| problem.status == StatusCode::SERVICE_UNAVAILABLE);
    let whole = match unavailable {
        Some(problem) => Problem {
            detail: problem.detail.clone(),
            ..**problem
        },
        None => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "no_order_taken",
            "none of the orders can be taken",
        ),
    };
    let mut value = whole.json();
    let indexed = problems.iter().enumerate().map(|(index, problem)| {
        json!({"index": index, "status": problem.status.as_u16(), "code": problem.code, "detail": problem.detail})
    });
    if let Some(fields) = value.as_object_mut() {
        fields.insert("problems".to_owned(), indexed.collect());
    }
    whole.respond(&value)
}

/// A request without an order can not come here; if it does, it is our defect.
pub(super) fn none() -> Problem {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "bug",
        "the request was lost inside the intake",
    )
}

/// Problem details by RFC 9457, with a stable code.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retry_after_seconds: Option<u16>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            retry_after_seconds: None,
        }
    }

    /// Our side can not take orders for now; sending again makes sense.
    pub(super) fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        let retry_after_seconds = Some(RETRY_AFTER_SECONDS);
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code,
            detail: detail.into(),
            retry_after_seconds,
        }
    }

    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    fn json(&self) -> Value {
        json!({
            // RFC 9457: without a type of its own a problem is what its status says.
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("error"),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        })
    }

    pub(super) fn response(&self) -> Response {
        self.respond(&self.json())
    }

    fn respond(&self, body: &Value) -> Response {
        let mut response = json_response(self.status, "application/problem+json", body);
        if let Some(seconds) = self.retry_after_seconds {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let status = match rejection.code {
            RejectionCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            RejectionCode::InvalidUtf8 | RejectionCode::InvalidJson | RejectionCode::TooDeep => {
                StatusCode::BAD_REQUEST
            }
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, rejection.code.as_str(), rejection.message)
    }
}

fn json_response(status: StatusCode, content_type: &'static str, body: &Value) -> Response {
    let mut response = (status, body.to_string()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
