//! Both rebalance protocols, as librdkafka's consumers live them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::message::Message;

use crate::batches::Batch;
use crate::client::Client;
use crate::scenarios;
use crate::stage::Stage;

scenarios! {
    eager_members_share_and_take_over: "Range: two members share the partitions, and what one gives back the other one takes over.";
    cooperative_members_share_and_take_over: "Cooperative-sticky: the first member keeps reading what it keeps.";
    a_third_member_joins_eagerly: "Three members under round robin each get a third.";
    a_new_partition_is_found: "A group takes up partitions that a topic grows.";
    a_new_member_goes_on_where_the_group_was: "Committed offsets are where a successor begins.";
}

const PARTITIONS: i32 = 6;
const DEADLINE: Duration = Duration::from_secs(30);

/// Counts what is taken away from a member.
#[derive(Default)]
struct Revocations(std::sync::atomic::AtomicUsize);

impl rdkafka::ClientContext for Revocations {}

impl ConsumerContext for Revocations {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            self.0
                .fetch_add(partitions.count(), std::sync::atomic::Ordering::Relaxed);
        }
    }
}

type MemberConsumer = BaseConsumer<Revocations>;

fn member(address: &str, group: &str, topic: &str, strategy: &str) -> MemberConsumer {
    let consumer: MemberConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", group)
        .set("partition.assignment.strategy", strategy)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("session.timeout.ms", "3000")
        .set("heartbeat.interval.ms", "100")
        .set("topic.metadata.refresh.interval.ms", "500")
        .set("fetch.queue.backoff.ms", "5")
        .create_with_context(Revocations::default())
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    consumer
}

fn owned(member: &MemberConsumer) -> BTreeSet<i32> {
    let list = member.assignment().unwrap();
    list.elements()
        .iter()
        .map(|element| element.partition())
        .collect()
}

fn revoked(member: &MemberConsumer) -> usize {
    member.context().0.load(std::sync::atomic::Ordering::Relaxed)
}

/// Polls all members until they own all partitions, each as many as said; panics at the deadline.
fn poll_until_shared(members: &[&MemberConsumer], counts: &[usize]) {
    let began = Instant::now();
    let total: usize = counts.iter().sum();
    loop {
        let sets: Vec<BTreeSet<i32>> = members.iter().map(|member| owned(member)).collect();
        let sizes: Vec<usize> = sets.iter().map(BTreeSet::len).collect();
        let distinct: BTreeSet<i32> = sets.into_iter().flatten().collect();
        if sizes == counts && distinct.len() == total {
            return;
        }
        assert!(began.elapsed() < DEADLINE, "partitions are owned as {sizes:?}");
        for member in members {
            if let Some(polled) = member.poll(Duration::from_millis(5)) {
                drop(polled.unwrap());
            }
        }
    }
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// What two members do: share; one unsubscribes; another one comes, and is closed.
fn shared_lives(address: &str, group: &str, topic: &str, strategy: &str) -> Vec<(String, String)> {
    let mut notes = Vec::new();
    let mut note = |what: &str, seen: String| notes.push((what.to_owned(), seen));
    let first = member(address, group, topic, strategy);
    poll_until_shared(&[&first], &[6]);
    note("alone", format!("{:?}", owned(&first)));
    let second = member(address, group, topic, strategy);
    poll_until_shared(&[&first, &second], &[3, 3]);
    note(
        "two members",
        format!("{} and {}", owned(&first).len(), owned(&second).len()),
    );
    note("taken from the first", revoked(&first).to_string());
    second.unsubscribe();
    poll_until_shared(&[&first], &[6]);
    note("the second left", format!("{:?}", owned(&first)));
    let third = member(address, group, topic, strategy);
    poll_until_shared(&[&first, &third], &[3, 3]);
    note(
        "another one",
        format!("{} and {}", owned(&first).len(), owned(&third).len()),
    );
    drop(third);
    poll_until_shared(&[&first], &[6]);
    note("alone again", format!("{:?}", owned(&first)));
    notes
}

async fn note_shared_lives(stage: &mut Stage, strategy: &'static str) {
    let (topic, group) = (stage.topic(PARTITIONS).await, stage.name("group"));
    let address = stage.address().to_owned();
    for (what, seen) in blocking(move || shared_lives(&address, &group, &topic, strategy)).await {
        stage.note(what, seen);
    }
}

async fn eager_members_share_and_take_over(stage: &mut Stage) {
    note_shared_lives(stage, "range").await;
}

async fn cooperative_members_share_and_take_over(stage: &mut Stage) {
    note_shared_lives(stage, "cooperative-sticky").await;
}

async fn a_third_member_joins_eagerly(stage: &mut Stage) {
    let (topic, group) = (stage.topic(PARTITIONS).await, stage.name("group"));
    let address = stage.address().to_owned();
    blocking(move || {
        let members: Vec<MemberConsumer> = (0..3)
            .map(|_| member(&address, &group, &topic, "roundrobin"))
            .collect();
        let members: Vec<&MemberConsumer> = members.iter().collect();
        poll_until_shared(&members, &[2, 2, 2]);
    })
    .await;
    stage.note("three members", "2, 2 and 2 of 6");
}

async fn a_new_partition_is_found(stage: &mut Stage) {
    let (topic, group) = (stage.topic(2).await, stage.name("group"));
    let address = stage.address().to_owned();
    let (grown, name) = (topic.clone(), group.clone());
    let reader = blocking(move || {
        let reader = member(&address, &name, &grown, "range");
        poll_until_shared(&[&reader], &[2]);
        reader
    })
    .await;
    stage.note("before", format!("{:?}", owned(&reader)));
    let code = stage.client().await.grow_topic(&topic, 4).await;
    stage.note("grow to 4", crate::client::error(code));
    let reader = blocking(move || {
        poll_until_shared(&[&reader], &[4]);
        reader
    })
    .await;
    stage.note("after", format!("{:?}", owned(&reader)));
}

async fn a_new_member_goes_on_where_the_group_was(stage: &mut Stage) {
    let (topic, group) = (stage.topic(1).await, stage.name("group"));
    let mut client: Client = stage.client().await;
    client.produce(&topic, &Batch::of(&["a", "b", "c", "d"])).await;
    for count in [3, 1] {
        let (address, group, topic) = (stage.address().to_owned(), group.clone(), topic.clone());
        let seen = blocking(move || {
            let reader = member(&address, &group, &topic, "range");
            let mut values = Vec::new();
            let began = Instant::now();
            while values.len() < count {
                assert!(began.elapsed() < DEADLINE, "only {values:?} came");
                if let Some(polled) = reader.poll(Duration::from_millis(20)) {
                    let record = polled.unwrap();
                    let payload = record.payload().unwrap_or_default();
                    values.push(String::from_utf8_lossy(payload).into_owned());
                    reader
                        .commit_message(&record, rdkafka::consumer::CommitMode::Sync)
                        .unwrap();
                }
            }
            values.join(", ")
        })
        .await;
        stage.note("a member reads", seen);
    }
}
