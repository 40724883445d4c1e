//! The page in headless Chromium, over a store that is written to while it is open.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

#[path = "common/browser.rs"]
mod browser;
mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use browser::Browser;
use common::{Sample, Server, store};
use docstore::DocumentStore;
use serde_json::json;

const ROWS: &str = "document.querySelectorAll('#rows tr:not(.skeleton)').length";
const OVERFLOW: &str = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
/// Where an order says it is a tag, the page shows the text.
const MARKUP: &str = "<img src=x onerror=\"window.hacked=1\">";

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// The same orders each time: a busy shop, spread over the last minutes.
fn sample(id: i64, record_time: i64) -> Sample {
    let spread = |salt: i64, of: i64| {
        let mixed = (id as u64 * 16 + salt as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33) as i64 % of
    };
    let countries = [
        "GB", "GB", "GB", "US", "US", "DE", "FR", "NG", "CA", "JP", "NL", "AU", "IE", "ZZ",
    ];
    let country = countries[spread(1, 14) as usize];
    let currency = match country {
        "US" | "NG" => "USD",
        "DE" | "FR" | "NL" | "IE" => "EUR",
        _ => "GBP",
    };
    let minor = 900 + spread(2, 40_000) + if spread(3, 20) == 0 { 400_000 } else { 0 };
    let (level, score) = match (minor, spread(4, 3)) {
        (300_000.., 0) => (Some("Critical"), 91),
        (300_000.., _) => (Some("High"), 62),
        (38_000.., _) => (Some("Medium"), 31),
        _ => (None, 0),
    };
    let status = match spread(5, 60) {
        0 | 1 => Some("DECLINED"),
        2 => Some("FAILED"),
        _ => Some("PAID"),
    };
    let amount: &'static str = Box::leak(common::decimal(minor).into_boxed_str());
    let customer = format!("cust-{:05}", spread(6, 99_999));
    let record_time = Some(record_time);
    Sample {
        id,
        record_time,
        country,
        currency,
        minor,
        amount,
        customer,
        status,
        level,
        score,
        ..Sample::default()
    }
}

fn picture(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("report-page");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(format!("{name}.png"))
}

/// Runs the test in a browser and closes it, also when the test fails: the driver's end alone would
/// leave Chromium running.
async fn in_browser<T: Future<Output = ()> + Send + 'static>(test: impl FnOnce(Arc<Browser>) -> T) {
    let Some(browser) = Browser::start().await else {
        // CI says that everything is installed, so there a missing browser is a failure.
        #[allow(clippy::disallowed_methods)]
        let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(
            !in_ci,
            "chromedriver is missing: install the packages `chromium` and `chromium-driver`"
        );
        println!("skipped: chromedriver is not installed (Debian: chromium, chromium-driver)");
        return;
    };
    let browser = Arc::new(browser);
    let ended = tokio::spawn(test(Arc::clone(&browser))).await;
    browser.close().await;
    if let Err(failure) = ended {
        std::panic::resume_unwind(failure.into_panic());
    }
}

async fn history(store: &Arc<dyn DocumentStore>, count: i64) {
    let now = now_ms();
    let mut samples: Vec<_> = (1..=count)
        .map(|id| {
            // From 13 minutes ago to now, with a wave in it.
            let part = id as f64 / count as f64;
            let wave = 0.03 * (part * 19.0).sin() + 0.012 * (part * 47.0).sin();
            sample(
                id,
                now - 1_000
                    - ((1.0 - part + wave * part * (1.0 - part) * 4.0).clamp(0.0, 1.0) * 780_000.0) as i64,
            )
        })
        .collect();
    for unsettled in samples.iter_mut().rev().take(4) {
        unsettled.status = None;
    }
    for batch in samples.chunks(500) {
        common::write(store, batch).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_arrive_totals_change_and_nothing_in_an_order_becomes_markup() {
    in_browser(|browser| async move {
        let (_folder, store) = store();
        let server = Server::start(report::router(Arc::clone(&store))).await;
        browser.size(1280, 900).await;
        browser.open(&server.url("/")).await;
        browser.until("document.body.dataset.state === 'live'").await;
        browser
            .until("document.getElementById('no-rows-what').textContent === 'No orders yet'")
            .await;
        browser.screenshot(&picture("empty-1280-light"), 1280, 900).await;

        let first = Sample {
            customer: MARKUP.into(),
            record_time: Some(now_ms()),
            ..sample(1, 0)
        };
        common::write(&store, &[first]).await;
        browser.until(&format!("{ROWS} === 1")).await;
        browser
            .until("document.getElementById('orders-count').textContent === '1'")
            .await;
        let shown = browser
            .run("return document.querySelector('#rows tr').children[2].textContent")
            .await;
        assert_eq!(shown, MARKUP);
        let tags = browser
            .run("return [document.querySelectorAll('tbody img').length, window.hacked ?? null]")
            .await;
        assert_eq!(tags, json!([0, null]));

        // Numbers that a float can not hold, an id that must be encoded in a link.
        let exact = Sample {
            text_id: Some("9007199254740993".into()),
            minor: 900_719_925_474_099_311,
            currency: "USD",
            amount: "9007199254740993.11",
            level: Some("Critical"),
            score: 97,
            status: None,
            ..sample(2, now_ms() + 1)
        };
        let slash = Sample {
            text_id: Some("a/b?<c>".into()),
            ..sample(3, now_ms() + 2)
        };
        common::write(&store, &[exact, slash]).await;
        browser.until(&format!("{ROWS} === 3")).await;
        let cells = browser
            .run("return [...document.querySelectorAll('#rows tr')].map(r => r.innerText)")
            .await;
        assert!(
            cells[0].as_str().unwrap().contains("a/b?<c>"),
            "newest first: {cells}"
        );
        let exact = cells[1].as_str().unwrap();
        assert!(
            exact.contains("9007199254740993") && exact.contains("9,007,199,254,740,993.11"),
            "{exact}"
        );
        assert!(
            exact.contains("Waiting") && exact.contains("Critical 97"),
            "{exact}"
        );
        let link = browser.run("return document.querySelector('#rows a').href").await;
        let answer = testkit::fetch(link.as_str().unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200, "the link of an order leads to it");

        history(&store, 120).await;
        browser.until(&format!("{ROWS} === 50")).await;
        browser
            .until("document.getElementById('orders-note').textContent === 'Showing the newest 50 of 122'")
            .await;
        // A few more light up; the table does not grow.
        common::write(
            &store,
            &(1_001..1_004)
                .map(|id| sample(id, now_ms() + id))
                .collect::<Vec<_>>(),
        )
        .await;
        browser
            .until("document.querySelectorAll('#rows tr.arrived').length === 3")
            .await;
        browser
            .screenshot(&picture("arriving-1280-light"), 1280, 900)
            .await;
        browser
            .until("document.getElementById('orders-count').textContent === '125'")
            .await;
        assert_eq!(browser.run(&format!("return {ROWS}")).await, 50);
        browser
            .until("document.querySelectorAll('#arrivals path.orders').length > 0")
            .await;

        // Without a mouse: the first Tab reaches the skip link, and pausing stops the updates.
        browser.run("document.getElementById('pause').click()").await;
        browser
            .until("document.getElementById('connection').textContent === 'Paused'")
            .await;
        common::write(&store, &[sample(2_000, now_ms() + 9_000)]).await;
        browser.run("document.getElementById('pause').click()").await;
        browser
            .until("document.getElementById('orders-count').textContent === '126'")
            .await;
        assert_eq!(browser.console_errors().await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_fits_a_phone_and_a_desk_in_light_and_dark() {
    in_browser(|browser| async move {
    let (_folder, store) = store();
    history(&store, 6_000).await;
    let server = Server::start(report::router(Arc::clone(&store))).await;
    for scheme in ["light", "dark"] {
        for (width, height) in [(390, 844), (700, 900), (1280, 900)] {
            browser.size(width, height).await;
            browser.scheme(scheme).await;
            browser.open(&server.url("/")).await;
            browser.until(&format!("{ROWS} === 50")).await;
            browser
                .until("document.querySelectorAll('#arrivals path.orders').length > 5")
                .await;
            assert_eq!(browser.run(OVERFLOW).await, 0, "no sideways scrolling at {width}");
            let picture = picture(&format!("page-{width}-{scheme}"));
            browser
                .screenshot(&picture, width, if width < 500 { 1_900 } else { 1_250 })
                .await;
        }
    }
    // What counts is never cut, on a phone either: amount, payment and risk.
    browser.size(390, 844).await;
    let cut = "return [...document.querySelectorAll('#rows td.number, #rows td:has(.badge), .figure, .legend, .card')]\
        .filter(e => e.offsetParent && e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)";
    assert_eq!(browser.run(cut).await, json!([]));
    assert_eq!(browser.console_errors().await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_goes_away_is_shown_and_its_return_is_too() {
    in_browser(|browser| async move {
        let (_folder, store) = store();
        history(&store, 100).await;
        let server = Server::start(report::router(Arc::clone(&store))).await;
        let address = server.address();
        browser.size(1280, 900).await;
        browser.open(&server.url("/")).await;
        browser.until("document.body.dataset.state === 'live'").await;
        server.stop().await;
        browser
            .until("document.body.dataset.state === 'reconnecting'")
            .await;
        browser
            .until("document.getElementById('trouble-what').textContent === 'The report does not answer.'")
            .await;
        browser
            .until("document.getElementById('trouble-then').textContent.startsWith('Shown is the data of ')")
            .await;
        assert_eq!(
            browser.run(&format!("return {ROWS}")).await,
            50,
            "what is known stays"
        );
        browser
            .screenshot(&picture("reconnecting-1280-light"), 1280, 900)
            .await;

        common::write(&store, &[sample(5_000, now_ms() + 1_000)]).await;
        let again = Server::start_at(report::router(Arc::clone(&store)), address).await;
        browser.run("document.getElementById('retry').click()").await;
        browser.until("document.body.dataset.state === 'live'").await;
        browser
            .until("document.getElementById('orders-count').textContent === '101'")
            .await;
        assert_eq!(
            browser
                .run("return document.getElementById('trouble').hidden")
                .await,
            true
        );
        again.stop().await;
    })
    .await;
}
