//! Ports for what is killed and comes back.
//!
//! They are not those that the system gives to clients (from 32768 on Linux, from 49152 elsewhere): while
//! a broker is away, one of the many who try to reach it would sooner or later be given the very port, and
//! even be connected with itself, and the broker could not come back.

use std::net::TcpListener;

use anyhow::bail;

use crate::random::Random;

const LEAST: u64 = 15_000;
const MOST: u64 = 32_000;
const ATTEMPTS: usize = 200;

/// So many ports that nobody listens on now.
///
/// # Errors
/// There are none.
pub fn free<const N: usize>() -> anyhow::Result<[u16; N]> {
    // Another process of this suite begins elsewhere.
    let mut random = Random::new(std::process::id().into(), "ports");
    let mut held = Vec::new();
    for _ in 0..ATTEMPTS {
        let port = u16::try_from(random.within(LEAST, MOST))?;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            held.push((port, listener));
        }
        if held.len() == N {
            let ports: Vec<u16> = held.iter().map(|(port, _)| *port).collect();
            return Ok(ports.try_into().unwrap_or([0; N]));
        }
    }
    bail!("no {N} free ports between {LEAST} and {MOST}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_different_and_of_no_client() {
        let [first, second] = free::<2>().unwrap();
        assert_ne!(first, second);
        let _held = [first, second].map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap());
        let again = free::<2>().unwrap();
        assert!(
            !again.contains(&first) && !again.contains(&second),
            "they are taken"
        );
        assert!(again.iter().all(|port| (15_000..=32_000).contains(port)));
    }
}
