//! The page's files, embedded in the program.

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::get;

use crate::answer;

const JS: &str = "text/javascript; charset=utf-8";

/// Path, content type and content of every file.
const FILES: &[(&str, &str, &str)] = &[
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    (
        "/page.css",
        "text/css; charset=utf-8",
        include_str!("page/page.css"),
    ),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("/theme.js", JS, include_str!("page/theme.js")),
    ("/page.js", JS, include_str!("page/page.js")),
    ("/feed.js", JS, include_str!("page/feed.js")),
    ("/format.js", JS, include_str!("page/format.js")),
    ("/figures.js", JS, include_str!("page/figures.js")),
    ("/orders.js", JS, include_str!("page/orders.js")),
    ("/arrivals.js", JS, include_str!("page/arrivals.js")),
];

pub(crate) fn routes() -> Router {
    FILES
        .iter()
        .fold(Router::new(), |router, (path, content_type, content)| {
            let serve =
                move |headers: HeaderMap| async move { answer::tagged(&headers, content_type, *content) };
            router.route(path, get(serve))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_stays_small() {
        let bytes: usize = FILES.iter().map(|(_, _, content)| content.len()).sum();
        assert!(bytes < 200 * 1024, "{bytes} bytes");
    }

    #[test]
    fn the_page_sets_text_and_never_markup() {
        for (path, _, content) in FILES.iter().filter(|(path, ..)| path.ends_with(".js")) {
            for way in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
            ] {
                assert!(!content.contains(way), "{path} uses {way}");
            }
        }
    }
}
