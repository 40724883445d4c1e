//! Damaged requests, by the hundred thousand, through the function that the server calls for each.
//!
//! Every version of every advertised request is taken as a sample, damaged in a random way, and
//! handled by a broker without sockets whose time stands still unless all of it waits: a long poll
//! ends at once. It must not panic, in no task of the broker, must answer, and must not ask for much
//! memory. A minute long; by hand, longer:
//!
//! `ORDERFLOW_FUZZ_SECONDS=3600 cargo test -p devbroker --lib fuzzing -- --nocapture`
//!
//! A run prints its seed, and a panic its request; `ORDERFLOW_FUZZ_SEED` repeats a run. A request that
//! asks for too much memory ends the process, and is found with the seed.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

use crate::batch::seal;
use crate::core::Core;
use crate::options::Options;
use crate::samples;
use crate::server::handle;
use crate::topic_config::TopicConfig;
use crate::versions::SUPPORTED;

/// Requests that one broker gets; then a new one begins, so that all of them meet young state too.
const REQUESTS_PER_BROKER: u64 = 2_000;
/// Longer than any wait that a request can ask for, on the broker's clock.
const PATIENCE: Duration = Duration::from_secs(3_000_000);
/// What all other tests of this process may need meanwhile is in these bounds too.
const MAX_RESIDENT_GROWTH_KB: u64 = 512 * 1024;
const MAX_ADDRESS_SPACE_GROWTH_KB: u64 = 4 * 1024 * 1024;
/// Numbers that lengths and counts do not like.
const EVIL: [i32; 10] = [-1, -2, 0, 1, 127, 32_767, 65_536, 500_001, i32::MAX, i32::MIN];

#[allow(
    clippy::disallowed_methods,
    reason = "tests are configured by the environment"
)]
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("`{name}` is `{text}`, must be a number")),
    )
}

struct Fuzzer {
    random: TestRng,
    samples: Vec<(ApiKey, i16, Vec<u8>)>,
}

impl Fuzzer {
    fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let versions = SUPPORTED
            .iter()
            .flat_map(|api| (api.min..=api.max).map(|version| (api.key, version)));
        let sample = |(key, version)| (key, version, samples::request(key, version).to_vec());
        Self {
            random: TestRng::from_seed(RngAlgorithm::ChaCha, &bytes),
            samples: versions.map(sample).collect(),
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.random.next_u64() % limit.max(1) as u64) as usize
    }

    fn sample(&mut self) -> (ApiKey, i16, Vec<u8>) {
        let index = self.below(self.samples.len());
        self.samples[index].clone()
    }

    /// A request with a sound header as a rule, and a body that is damaged as a rule.
    fn request(&mut self) -> Vec<u8> {
        let (key, version, mut body) = self.sample();
        if key == ApiKey::Produce && self.below(2) == 0 {
            body = samples::produce(version, self.batch()).to_vec();
        } else {
            for _ in 0..self.below(4) {
                self.damage(&mut body);
            }
        }
        let mut frame = samples::frame(key, version, 1, &body);
        if self.below(16) == 0 {
            self.damage(&mut frame);
        }
        frame
    }

    /// A batch whose damage is not seen by the checksum, so that it reaches those who read records.
    fn batch(&mut self) -> Vec<u8> {
        let mut batch = samples::batch(1 + self.below(5) as i32, 5, None);
        // The codec, for it decides who reads what follows.
        batch[22] |= self.below(6) as u8;
        let mut records = batch.split_off(crate::batch::HEADER_BYTES);
        for _ in 0..self.below(3) {
            self.damage(&mut records);
        }
        batch.extend(records);
        let length = batch.len() as i32 - 12;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        seal(&mut batch);
        batch
    }

    fn damage(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        match self.below(8) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            1 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
            2 => {
                let evil = EVIL[self.below(EVIL.len())].to_be_bytes();
                let width = [2, 4][self.below(2)];
                let end = (at + width).min(bytes.len());
                bytes.splice(at..end, evil[4 - width..].iter().copied());
            }
            3 => bytes.truncate(at),
            4 => {
                let mut noise = vec![0; self.below(40)];
                self.random.fill_bytes(&mut noise);
                bytes.splice(at..at, noise);
            }
            5 => {
                let end = at + self.below(bytes.len() - at + 1);
                bytes.drain(at..end);
            }
            6 => {
                let end = at + self.below(bytes.len() - at + 1);
                bytes.extend_from_within(at..end);
            }
            _ => {
                let (_, _, other) = self.sample();
                let from = self.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
}

/// Says which request it was, if the test fails while it is handled.
struct Witness<'a> {
    seed: u64,
    number: u64,
    request: &'a [u8],
}

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut hex = String::new();
            for byte in self.request {
                write!(hex, "{byte:02x}").unwrap();
            }
            eprintln!("seed {}, request {}: {hex}", self.seed, self.number);
        }
    }
}

/// Counts the panics of this thread, which runs all tasks of the brokers here. A task's panic would
/// otherwise be seen by nobody.
fn count_panics() -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let (counting, here) = (Arc::clone(&count), std::thread::current().id());
    let former = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() == here {
            counting.fetch_add(1, Ordering::Relaxed);
        }
        former(info);
    }));
    count
}

/// The most of its address space and of its memory that the process ever used, in KiB; `None` where
/// the system does not say.
fn peaks_kb() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    Some((field("VmPeak:")?, field("VmHWM:")?))
}

fn scratch_broker() -> Arc<Core> {
    let core = Arc::new(Core::in_memory(Options {
        retention_bytes: 8 << 20,
        max_partitions: 200,
        max_groups: 200,
        ..Options::default()
    }));
    let policy = [
        ("cleanup.policy", Some("compact,delete")),
        ("min.cleanable.dirty.ratio", Some("0")),
    ];
    let config = TopicConfig::parse(policy).unwrap();
    core.topics.create("topic", 1, config, false).unwrap();
    core
}

#[tokio::test(start_paused = true)]
async fn damaged_requests_are_answered_or_refused() {
    let seed = setting("ORDERFLOW_FUZZ_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.as_nanos() as u64
    });
    let time = Duration::from_secs(setting("ORDERFLOW_FUZZ_SECONDS").unwrap_or(60));
    eprintln!("ORDERFLOW_FUZZ_SEED={seed}");
    let panics = count_panics();
    let mut fuzzer = Fuzzer::new(seed);
    let address = SocketAddr::from(([127, 0, 0, 1], 9_092));
    let (began, peaks_before) = (Instant::now(), peaks_kb());
    let (mut number, mut accepted) = (0_u64, 0_u64);
    while began.elapsed() < time {
        let core = scratch_broker();
        for _ in 0..REQUESTS_PER_BROKER {
            let request = fuzzer.request();
            number += 1;
            let witness = Witness {
                seed,
                number,
                request: &request,
            };
            let handled = handle(&core, Bytes::copy_from_slice(&request), address);
            let answer = tokio::time::timeout(PATIENCE, handled).await;
            let answer = answer.expect("no request waits for ever");
            assert_eq!(panics.load(Ordering::Relaxed), 0, "a task of the broker panicked");
            accepted += u64::from(answer.is_ok());
            drop(witness);
        }
        core.enforce_retention();
        core.compact();
        core.stopping.cancel();
        core.tasks.close();
        core.tasks.wait().await;
        assert_eq!(panics.load(Ordering::Relaxed), 0, "a task of the broker panicked");
    }
    eprintln!(
        "{number} requests, {accepted} of them understood, in {:?}",
        began.elapsed()
    );
    assert!(
        accepted > number / 10 && accepted < number * 9 / 10,
        "the damage is too much or too little"
    );
    if let Some((before, after)) = peaks_before.zip(peaks_kb()) {
        let growth = (after.0 - before.0, after.1 - before.1);
        eprintln!(
            "grew by {} KiB of address space and {} KiB of memory",
            growth.0, growth.1
        );
        assert!(growth.0 < MAX_ADDRESS_SPACE_GROWTH_KB, "{before:?} {after:?}");
        assert!(growth.1 < MAX_RESIDENT_GROWTH_KB, "{before:?} {after:?}");
    }
}
