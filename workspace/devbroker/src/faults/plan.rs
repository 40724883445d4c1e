//! What goes wrong, and with which requests. Pure.

use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;

/// The longest delay that a fault may cause.
const LONGEST_DELAY: Duration = Duration::from_secs(3_600);
/// The longest name that a fault may look for; Kafka's own are shorter.
const LONGEST_NAME_BYTES: usize = 1_000;

/// Something that goes wrong with a request. [`Fault::on`] says with which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The request has no effect, and everything that it asks about is answered with this error.
    AnswerError(ResponseError),
    /// The request waits so long before it is looked into, and those behind it on its connection too.
    Delay(Duration),
    /// The request is handled at once, and its answer waits so long.
    DelayAnswer(Duration),
    /// The connection closes, and the request had no effect.
    DropBefore,
    /// The request has its effect and the connection closes: the client never hears of it.
    DropAfter,
    /// The broker reads nothing more from the connection and says nothing, but keeps it open. When
    /// the fault is removed the connection goes on where it stopped, as after a pause of the
    /// process: also requests that their client gave up are then handled. It closes when that takes
    /// longer than [`Options::connection_idle_timeout`](crate::Options::connection_idle_timeout).
    StopReading,
}

impl Fault {
    /// This fault, once, with the next request of this kind.
    pub fn on(self, api: ApiKey) -> Injection {
        Injection {
            api: Some(api),
            ..self.on_any_request()
        }
    }

    /// This fault, once, with the next request, whatever it is. A client that must authenticate is
    /// spared until it has: only faults that name their request strike it before.
    pub fn on_any_request(self) -> Injection {
        Injection {
            fault: self,
            api: None,
            client_id: None,
            topic: None,
            group: None,
            transactional_id: None,
            after: 0,
            times: Some(1),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AnswerError(_) => "answer_error",
            Self::Delay(_) => "delay",
            Self::DelayAnswer(_) => "delay_answer",
            Self::DropBefore => "drop_before",
            Self::DropAfter => "drop_after",
            Self::StopReading => "stop_reading",
        }
    }
}

/// A fault and the requests that it strikes: those to which everything said here applies. A request
/// that names several topics or groups is struck whole when one of them is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it strikes nothing before `Broker::inject` was called with it"]
pub struct Injection {
    pub(crate) fault: Fault,
    pub(crate) api: Option<ApiKey>,
    pub(crate) client_id: Option<String>,
    pub(crate) topic: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) transactional_id: Option<String>,
    pub(crate) after: u32,
    /// `None` for always.
    pub(crate) times: Option<u32>,
}

impl Injection {
    /// Only requests of the client that calls itself so.
    pub fn of_client(self, client_id: &str) -> Self {
        let client_id = Some(client_id.to_owned());
        Self { client_id, ..self }
    }

    /// Only requests that name this topic. Clients may name a topic by its id, which is not seen.
    pub fn of_topic(self, topic: &str) -> Self {
        let topic = Some(topic.to_owned());
        Self { topic, ..self }
    }

    /// Only requests that name this consumer group.
    pub fn of_group(self, group: &str) -> Self {
        let group = Some(group.to_owned());
        Self { group, ..self }
    }

    /// Only requests that name this transactional id.
    pub fn of_transactional_id(self, transactional_id: &str) -> Self {
        let transactional_id = Some(transactional_id.to_owned());
        Self {
            transactional_id,
            ..self
        }
    }

    /// Lets the first `requests` of them pass.
    pub fn after(self, requests: u32) -> Self {
        let after = requests;
        Self { after, ..self }
    }

    /// Strikes so many of them, instead of one.
    pub fn times(self, times: u32) -> Self {
        let times = Some(times);
        Self { times, ..self }
    }

    /// Strikes all of them until it is removed.
    pub fn always(self) -> Self {
        let times = None;
        Self { times, ..self }
    }

    /// Why this can not be injected, if it can not.
    pub(crate) fn problem(&self) -> Option<String> {
        if let Fault::Delay(delay) | Fault::DelayAnswer(delay) = self.fault
            && delay > LONGEST_DELAY
        {
            return Some(format!(
                "the delay is `{delay:?}`, must be {LONGEST_DELAY:?} or less"
            ));
        }
        if matches!(self.fault, Fault::AnswerError(error) if error.code() == 0) {
            return Some("the error has code `0`, which is no error".to_owned());
        }
        if self.times == Some(0) {
            return Some("`times` is `0`, must be 1 or more".to_owned());
        }
        let names = [
            ("client_id", &self.client_id),
            ("topic", &self.topic),
            ("group", &self.group),
            ("transactional_id", &self.transactional_id),
        ];
        let too_long = names
            .into_iter()
            .find(|(_, name)| name.as_ref().is_some_and(|name| name.len() > LONGEST_NAME_BYTES));
        too_long.map(|(field, _)| format!("`{field}` is longer than {LONGEST_NAME_BYTES} bytes"))
    }

    /// Whether it asks for more than what the header of a request says.
    pub(crate) fn looks_for_names(&self) -> bool {
        self.topic.is_some() || self.group.is_some() || self.transactional_id.is_some()
    }

    pub(crate) fn concerns(&self, request: &Header<'_>) -> bool {
        let right_api = match self.api {
            Some(wanted) => wanted == request.api,
            None => request.client_is_known,
        };
        let wanted = self.client_id.as_deref();
        right_api && wanted.is_none_or(|wanted| wanted == request.client_id)
    }

    pub(crate) fn is_about(&self, names: &Names) -> bool {
        let named = |wanted: &Option<String>, names: &[String]| {
            wanted.as_ref().is_none_or(|wanted| names.contains(wanted))
        };
        named(&self.topic, &names.topics)
            && named(&self.group, &names.groups)
            && named(&self.transactional_id, &names.transactional_ids)
    }
}

/// What is known of a request before its body is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header<'a> {
    pub(crate) api: ApiKey,
    pub(crate) client_id: &'a str,
    /// Whether the client has authenticated, where it must.
    pub(crate) client_is_known: bool,
}

/// What a request names in its body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) topics: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) transactional_ids: Vec<String>,
}

/// An injection and how far it is.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) injection: Injection,
    passed: u32,
    struck: u32,
}

impl Rule {
    pub(crate) fn new(injection: Injection) -> Self {
        Self {
            injection,
            passed: 0,
            struck: 0,
        }
    }

    /// Whether it can strike once more.
    pub(crate) fn is_armed(&self) -> bool {
        self.injection.times.is_none_or(|times| self.struck < times)
    }

    /// Decides over a request to which the injection applies: it passes, or it is struck.
    pub(crate) fn strikes(&mut self) -> bool {
        if !self.is_armed() {
            return false;
        }
        if self.passed < self.injection.after {
            self.passed += 1;
            return false;
        }
        self.struck = self.struck.saturating_add(1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn injection() -> Injection {
        Fault::DropBefore.on(ApiKey::Produce)
    }

    #[test]
    fn the_first_requests_pass_then_so_many_are_struck_and_then_none() {
        let decided = |injection: Injection| {
            let mut rule = Rule::new(injection);
            (0..6).map(|_| rule.strikes()).collect::<Vec<bool>>()
        };
        assert_eq!(decided(injection()), [true, false, false, false, false, false]);
        assert_eq!(
            decided(injection().after(2).times(3)),
            [false, false, true, true, true, false]
        );
        assert_eq!(
            decided(injection().after(1).always()),
            [false, true, true, true, true, true]
        );
    }

    fn header(api: ApiKey, client_id: &str) -> Header<'_> {
        Header {
            api,
            client_id,
            client_is_known: true,
        }
    }

    #[test]
    fn a_client_that_is_not_known_meets_only_faults_that_name_its_request() {
        let unknown = |api| Header {
            client_is_known: false,
            ..header(api, "")
        };
        let any = Fault::DropAfter.on_any_request();
        assert!(!any.concerns(&unknown(ApiKey::SaslAuthenticate)));
        let named = Fault::DropAfter.on(ApiKey::SaslAuthenticate);
        assert!(named.concerns(&unknown(ApiKey::SaslAuthenticate)));
        assert!(!named.concerns(&unknown(ApiKey::SaslHandshake)));
    }

    #[test]
    fn everything_that_an_injection_says_must_apply() {
        let any = Fault::DropAfter.on_any_request();
        assert!(any.concerns(&header(ApiKey::Fetch, "")));
        let of_client = injection().of_client("a");
        assert!(of_client.concerns(&header(ApiKey::Produce, "a")));
        assert!(!of_client.concerns(&header(ApiKey::Produce, "b")));
        assert!(!of_client.concerns(&header(ApiKey::Fetch, "a")));

        let names = Names {
            topics: vec!["orders".to_owned(), "payments".to_owned()],
            groups: vec!["payment".to_owned()],
            transactional_ids: vec!["payment-0".to_owned()],
        };
        assert!(any.is_about(&names));
        assert!(any.clone().of_topic("payments").is_about(&names));
        assert!(!any.clone().of_topic("alerts").is_about(&names));
        assert!(
            any.clone()
                .of_topic("orders")
                .of_group("payment")
                .is_about(&names)
        );
        assert!(!any.clone().of_topic("orders").of_group("fraud").is_about(&names));
        assert!(any.clone().of_transactional_id("payment-0").is_about(&names));
        assert!(!any.of_transactional_id("payment-1").is_about(&names));
    }

    #[test]
    fn what_can_not_be_meant_is_refused_with_the_field() {
        let problem = |injection: Injection| injection.problem().unwrap_or_default();
        assert_eq!(problem(injection()), "");
        assert!(problem(injection().times(0)).contains("`times` is `0`"));
        assert!(problem(injection().of_topic(&"x".repeat(1_001))).contains("`topic`"));
        let too_long = Fault::Delay(Duration::from_secs(3_601)).on(ApiKey::Fetch);
        assert!(problem(too_long).contains("delay"));
        let none = Fault::AnswerError(ResponseError::Unknown(0)).on(ApiKey::Fetch);
        assert!(problem(none).contains("code `0`"));
    }
}
