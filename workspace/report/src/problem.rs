//! RFC 9457 problem documents.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use docstore::{StoreError, StoreErrorKind};
use serde_json::json;

/// An answer that is not what was asked for: a status, a stable code, and a sentence.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retry_after_seconds: Option<u16>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            retry_after_seconds: None,
        }
    }

    /// Our side can not answer for now; asking again makes sense.
    pub(crate) fn unavailable(
        code: &'static str,
        detail: impl Into<String>,
        retry_after_seconds: u16,
    ) -> Self {
        let retry_after_seconds = Some(retry_after_seconds);
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code,
            detail: detail.into(),
            retry_after_seconds,
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        // The text names a file and a remedy, which is for the operator's log and not for a reader.
        tracing::debug!(%error, code = error.code(), "a request met a store error");
        match error.kind() {
            StoreErrorKind::Transient => Self::unavailable(
                error.code(),
                "the document store can not answer now, ask again",
                1,
            ),
            _ => Self::unavailable(
                error.code(),
                "the document store needs its operator, see the report's log",
                30,
            ),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({
            // RFC 9457: without a type of its own a problem is what its status says.
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("error"),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        });
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
