//! JSON answers with entity tags, assembled from stored text.
//!
//! Stored documents go out as they are: parsing and printing them again would round their numbers.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use docstore::{OrderRecord, StoredDocument};

/// `{"orders":[...],"details":[...]}`: the orders as stored, and at the same index of `details` the
/// order's id as text with its payment and alert. Apart, because an order may have any field.
pub(crate) fn orders(records: &[OrderRecord]) -> String {
    let bytes: usize = records
        .iter()
        .map(|record| record.order.body.len() * 2 + 512)
        .sum();
    let mut out = String::with_capacity(bytes + 64);
    out.push_str("{\"orders\":[");
    separated(&mut out, records, |out, record| out.push_str(&record.order.body));
    out.push_str("],\"details\":[");
    separated(&mut out, records, |out, record| {
        out.push_str("{\"order_id\":");
        out.push_str(&serde_json::Value::from(record.order.key.as_str()).to_string());
        parts(out, record);
        out.push('}');
    });
    out.push_str("]}");
    out
}

/// `{"order":...,"payment":...,"alert":...}`, with `null` for what is not there.
pub(crate) fn order(record: &OrderRecord) -> String {
    let mut out = String::with_capacity(record.order.body.len() + 1024);
    out.push_str("{\"order\":");
    out.push_str(&record.order.body);
    parts(&mut out, record);
    out.push('}');
    out
}

fn parts(out: &mut String, record: &OrderRecord) {
    let body =
        |part: &'_ Option<StoredDocument>| part.as_ref().map_or("null".to_owned(), |part| part.body.clone());
    out.push_str(",\"payment\":");
    out.push_str(&body(&record.payment));
    out.push_str(",\"alert\":");
    out.push_str(&body(&record.alert));
}

fn separated<T>(out: &mut String, items: &[T], mut write: impl FnMut(&mut String, &T)) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(out, item);
    }
}

/// 200 with the body, or 304 when the client has the same one. Clients keep answers and ask again
/// each time (`no-cache`).
pub(crate) fn tagged(
    request: &HeaderMap,
    content_type: &'static str,
    body: impl Into<Body> + AsRef<[u8]>,
) -> Response {
    let tag = entity_tag(body.as_ref());
    let same = request
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        // Weak comparison, RFC 9110 section 8.8.3.2: a proxy that compresses makes a tag weak.
        .map(|offered| offered.trim().trim_start_matches("W/"))
        .any(|offered| offered == tag || offered == "*");
    let mut response = match same {
        true => Response::new(Body::empty()),
        false => Response::new(body.into()),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(header::ETAG, tag);
    }
    if same {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    response
}

/// Length and 64 bits of hash: a tag only has to tell one answer of a URL from the one before it.
fn entity_tag(body: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    format!("\"{:x}-{:016x}\"", body.len(), hasher.finish())
}
