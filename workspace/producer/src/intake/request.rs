//! Bodies of requests.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use domain::json::Elements;
use tokio::time::Instant;

use super::answer::Problem;
use super::{MAX_BODY_BYTES, MAX_ORDERS};

/// What a body holds.
#[derive(Debug)]
pub(super) enum Body<'a> {
    One(&'a [u8]),
    Many(Vec<&'a [u8]>),
}

/// Reads the whole body within limit and deadline.
pub(super) async fn read(request: Request, deadline: Instant) -> Result<Bytes, Problem> {
    // A page of another site can send forms and plain text to this address, but not JSON.
    if !is_json(&request) {
        let detail = "the body must be JSON: send the header `content-type: application/json`";
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not_json",
            detail,
        ));
    }
    match tokio::time::timeout_at(deadline, Bytes::from_request(request, &())).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("the body has more than {MAX_BODY_BYTES} bytes, send fewer orders at once"),
        )),
        Ok(Err(_)) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "incomplete",
            "the body did not arrive whole",
        )),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "slow_body",
            "the body did not arrive in time",
        )),
    }
}

fn is_json(request: &Request) -> bool {
    let value = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Cuts a body into orders.
pub(super) fn split(bytes: &[u8]) -> Result<Body<'_>, Problem> {
    if bytes.trim_ascii_start().first() != Some(&b'[') {
        return Ok(Body::One(bytes));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let detail = format!("the message is not UTF-8 at byte {}", error.valid_up_to());
        Problem::new(StatusCode::BAD_REQUEST, "invalid_utf8", detail)
    })?;
    let Some(mut elements) = Elements::of(text) else {
        return Ok(Body::One(bytes));
    };
    let mut orders = Vec::new();
    while let Some(element) = elements.next_element()? {
        if orders.len() == MAX_ORDERS {
            let detail = format!("the array has more than {MAX_ORDERS} orders, send fewer at once");
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_many_orders",
                detail,
            ));
        }
        orders.push(element.raw.as_bytes());
    }
    if orders.is_empty() {
        let detail = "the array is empty, must hold at least one order";
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "no_orders",
            detail,
        ));
    }
    Ok(Body::Many(orders))
}
