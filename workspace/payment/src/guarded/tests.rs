//! Many who ask, on paused time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use domain::{Currency, Money, OrderId};
use prometheus::Registry;

use super::*;

/// Works or not, as it is told, and counts.
#[derive(Default)]
struct Switched {
    is_down: AtomicBool,
    refuses_us: AtomicBool,
    asked: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl PaymentGateway for Arc<Switched> {
    async fn charge(&self, _: Charge<'_>) -> Result<Settled, GatewayError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(at_once, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        let message = "down".to_owned();
        if self.refuses_us.load(Ordering::SeqCst) {
            return Err(GatewayError::Misconfigured { message });
        }
        if self.is_down.load(Ordering::SeqCst) {
            return Err(GatewayError::NoAnswer { message });
        }
        Ok(Settled::Paid)
    }

    async fn lookup(&self, _: &str) -> Result<Found, GatewayError> {
        Ok(Found::Nothing)
    }
}

const LIMITS: Limits = Limits {
    failures: 5,
    first: Duration::from_secs(1),
    most: Duration::from_secs(8),
};

struct Scene {
    switched: Arc<Switched>,
    guarded: Arc<Guarded<Arc<Switched>>>,
    registry: Registry,
}

fn scene(places: usize) -> Scene {
    let registry = Registry::new();
    let metrics = GatewayMetrics::register(&registry).expect("fresh registry");
    let switched = Arc::new(Switched::default());
    let guarded = Guarded::new(Arc::clone(&switched), places, LIMITS, metrics);
    Scene {
        switched,
        guarded: Arc::new(guarded),
        registry,
    }
}

impl Scene {
    /// One call of an order that takes its place first.
    async fn charge(&self) -> Result<Settled, GatewayError> {
        let place = self.guarded.ready().await;
        let result = self.charge_in_place().await;
        drop(place);
        result
    }

    async fn charge_in_place(&self) -> Result<Settled, GatewayError> {
        let order_id = OrderId::integer(1);
        let charge = Charge {
            payment_id: "pay_1",
            order_id: &order_id,
            money: Money::parse("1", Currency::USD).expect("money"),
        };
        self.guarded.charge(charge).await
    }

    fn asked(&self) -> usize {
        self.switched.asked.load(Ordering::SeqCst)
    }

    fn waiting(&self, reason: &str) -> f64 {
        let families = self.registry.gather();
        let family = families
            .iter()
            .find(|family| family.name() == crate::metrics::WAITING)
            .expect("registered");
        let of_reason = |metric: &&prometheus::proto::Metric| {
            metric.get_label().iter().any(|label| label.value() == reason)
        };
        let metric = family.get_metric().iter().find(of_reason).expect("present");
        metric.get_gauge().get_value()
    }
}

fn is_away(result: &Result<Settled, GatewayError>) -> bool {
    matches!(result, Err(GatewayError::Away { .. }))
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_places_ask_at_once() {
    let scene = scene(7);
    let all = futures(&scene, 100).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(scene.switched.most_at_once.load(Ordering::SeqCst), 7);
}

/// So many orders at once.
async fn futures(scene: &Scene, count: usize) -> Vec<Result<Settled, GatewayError>> {
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..count {
        let scene = Scene {
            switched: Arc::clone(&scene.switched),
            guarded: Arc::clone(&scene.guarded),
            registry: scene.registry.clone(),
        };
        set.spawn(async move { scene.charge().await });
    }
    set.join_all().await
}

#[tokio::test(start_paused = true)]
async fn while_the_gateway_is_away_one_asks_now_and_then_and_nobody_fails_by_it() {
    let scene = scene(20);
    scene.switched.is_down.store(true, Ordering::SeqCst);
    let results = futures(&scene, 20).await;
    // Four failed before anybody knew; the others learned with the fifth that it is no fault of theirs.
    let failed = results.iter().filter(|result| !is_away(result)).count();
    assert_eq!((failed, results.len()), (4, 20));
    assert_eq!(
        (scene.waiting("outage"), scene.waiting("configuration")),
        (1.0, 0.0)
    );

    let (asked, began) = (scene.asked(), Instant::now());
    for _ in 0..4 {
        assert!(is_away(&scene.charge().await));
    }
    assert_eq!(scene.asked() - asked, 4);
    // The pauses before the probes: 1, 2, 4 and 8 s.
    assert!(
        began.elapsed() >= Duration::from_secs(14),
        "{:?}",
        began.elapsed()
    );

    scene.switched.is_down.store(false, Ordering::SeqCst);
    let results = futures(&scene, 50).await;
    assert!(results.iter().all(Result::is_ok), "all waited and went on");
    assert_eq!(scene.waiting("outage"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_refuses_us_is_waited_for_from_the_first_answer_on() {
    let scene = scene(20);
    scene.switched.refuses_us.store(true, Ordering::SeqCst);
    assert!(is_away(&scene.charge().await));
    assert_eq!(
        (scene.waiting("outage"), scene.waiting("configuration")),
        (0.0, 1.0)
    );
    scene.switched.refuses_us.store(false, Ordering::SeqCst);
    assert_eq!(scene.charge().await, Ok(Settled::Paid));
    assert_eq!(scene.waiting("configuration"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_cancelled_leaves_its_place_to_the_next() {
    let scene = scene(20);
    scene.switched.is_down.store(true, Ordering::SeqCst);
    futures(&scene, 5).await;
    scene.switched.is_down.store(false, Ordering::SeqCst);
    let cancelled = tokio::time::timeout(Duration::from_millis(1_005), scene.charge()).await;
    assert!(cancelled.is_err(), "it was cancelled while it asked");
    let next = tokio::time::timeout(Duration::from_secs(1), scene.charge()).await;
    assert_eq!(next, Ok(Ok(Settled::Paid)));
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_began_before_the_circuit_opened_counts_for_nothing_after_it_closed() {
    let scene = scene(20);
    scene.switched.is_down.store(true, Ordering::SeqCst);
    let place = scene.guarded.ready().await;
    futures(&scene, 4).await;
    let late = async {
        // Asks before the circuit opens, and hears of it when it is closed again.
        let asked_in = scene.guarded.shared.circuit().era();
        assert_eq!(asked_in, Circuit::new(LIMITS).era());
        let work = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            Err(GatewayError::NoAnswer {
                message: "late".to_owned(),
            })
        };
        scene.guarded.call("charge", work, |_: &Settled| "paid").await
    };
    let others = async {
        futures(&scene, 1).await;
        scene.switched.is_down.store(false, Ordering::SeqCst);
        assert_eq!(scene.charge().await, Ok(Settled::Paid));
    };
    let (late, ()) = tokio::join!(late, others);
    assert!(is_away(&late), "{late:?}");
    assert!(scene.guarded.shared.circuit().is_closed());
    drop(place);
}
