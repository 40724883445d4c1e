//! Waiting for an event by asking until it is there.

use std::fmt::Display;
use std::future::Future;
use std::panic::Location;
use std::time::Duration;

use tokio::time::Instant;

/// How often it is asked.
const INTERVAL: Duration = Duration::from_millis(20);

/// What a question to [`eventually`] may answer: `bool`, `Option<T>` or `Result<T, E>`.
pub trait Check {
    /// What is there in the end.
    type Value;
    /// The value, or why it is not there yet.
    fn settle(self) -> Result<Self::Value, String>;
}

impl Check for bool {
    type Value = ();

    fn settle(self) -> Result<(), String> {
        if self {
            Ok(())
        } else {
            Err("it is still false".to_owned())
        }
    }
}

impl<T> Check for Option<T> {
    type Value = T;

    fn settle(self) -> Result<T, String> {
        self.ok_or_else(|| "there is still nothing".to_owned())
    }
}

impl<T, E: Display> Check for Result<T, E> {
    type Value = T;

    fn settle(self) -> Result<T, String> {
        self.map_err(|error| error.to_string())
    }
}

/// Asks until the answer is `true`, `Some` or `Ok`, and returns the value. A question that takes
/// longer than the deadline is given up too.
///
/// # Panics
/// When the deadline has passed, with the last answer and the place of the call.
#[track_caller]
pub fn eventually<F, Fut>(
    deadline: Duration,
    mut question: F,
) -> impl Future<Output = <Fut::Output as Check>::Value>
where
    F: FnMut() -> Fut,
    Fut: Future<Output: Check>,
{
    let place = Location::caller();
    async move {
        let end = Instant::now() + deadline;
        let mut last = "no answer came".to_owned();
        while let Ok(answer) = tokio::time::timeout_at(end, question()).await {
            match answer.settle() {
                Ok(value) => return value,
                Err(reason) => last = reason,
            }
            if Instant::now() + INTERVAL >= end {
                break;
            }
            tokio::time::sleep(INTERVAL).await;
        }
        panic!("not within {} ms at {place}: {last}", deadline.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn it_returns_the_first_good_answer() {
        let asked = Cell::new(0);
        let value = eventually(Duration::from_secs(5), || {
            asked.set(asked.get() + 1);
            let count = asked.get();
            async move { (count == 3).then_some(count) }
        });
        assert_eq!(value.await, 3);
        assert_eq!(asked.get(), 3);
    }

    #[tokio::test]
    #[should_panic(expected = "not within 50 ms at ")]
    async fn it_gives_up_on_a_question_that_never_ends() {
        eventually(Duration::from_millis(50), std::future::pending::<bool>).await;
    }

    #[tokio::test]
    #[should_panic(expected = "the store is locked")]
    async fn it_shows_the_last_answer() {
        eventually(Duration::from_millis(50), || async {
            Err::<(), _>("the store is locked")
        })
        .await;
    }
}
