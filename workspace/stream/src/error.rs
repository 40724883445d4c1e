//! What can go wrong with Kafka itself, in words that name the remedy.

use rdkafka::types::RDKafkaErrorCode;

use crate::position::Offset;

/// An error of a Kafka client.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StreamError {
    /// A setting that the client refuses.
    #[error("the Kafka client refuses its configuration: {message}")]
    Config {
        /// The client's own words.
        message: String,
    },
    /// A partition got nowhere, and nobody knows why.
    #[error(
        "watchdog: nothing of `{topic}[{partition}]` was committed for {limit_ms} ms (`stream.watchdog_ms`) at offset {committed}, although records are there to read up to {end}"
    )]
    Stuck {
        /// Its topic.
        topic: String,
        /// Which partition.
        partition: i32,
        /// What the group has committed.
        committed: i64,
        /// The last stable offset.
        end: i64,
        /// How long.
        limit_ms: u128,
    },
    /// Too many records in a row, or too large a share of them, became dead letters.
    #[error("{why}")]
    Brake {
        /// How many.
        why: String,
    },
    /// No broker answers.
    #[error(
        "no Kafka broker answers at `{brokers}`: {cause}; check `kafka.brokers` (KAFKA_BROKERS) and that the broker is running"
    )]
    Unreachable {
        /// What was configured.
        brokers: String,
        /// What the client saw last.
        cause: String,
    },
    /// The broker refuses who we are.
    #[error(
        "Kafka at `{brokers}` refuses the credentials: {cause}; check `kafka.api_key` and `kafka.api_secret` (KAFKA_API_KEY, KAFKA_API_SECRET)"
    )]
    Authentication {
        /// What was configured.
        brokers: String,
        /// The broker's own words.
        cause: String,
    },
    /// The connection can not be encrypted, or the broker is not who it should be.
    #[error(
        "no TLS connection to Kafka at `{brokers}`: {cause}; check `kafka.security_protocol`, and that `kafka.ca_file` names the authority that signed the broker's certificate"
    )]
    Tls {
        /// What was configured.
        brokers: String,
        /// The client's own words.
        cause: String,
    },
    /// The broker does not let us.
    #[error(
        "Kafka does not allow {what}: {cause}; grant it to the principal of this service (`orderflow acls plan` prints the least privileges)"
    )]
    Authorization {
        /// What was tried.
        what: String,
        /// The broker's own words.
        cause: String,
    },
    /// A topic is missing.
    #[error("topic `{topic}` does not exist; create it with `orderflow topics apply`")]
    MissingTopic {
        /// Its name.
        topic: String,
    },
    /// A derived topic has fewer partitions than its source.
    #[error(
        "topic `{topic}` has {partitions} partitions and its source `{source_topic}` has {wanted}: outputs keep the partition of their input; grow it with `orderflow topics apply`"
    )]
    TooFewPartitions {
        /// The derived topic.
        topic: String,
        /// What it has.
        partitions: i32,
        /// The topic that it derives from.
        source_topic: String,
        /// What it needs.
        wanted: i32,
    },
    /// The committed offset is not in the log any more.
    #[error(
        "group `{group}` stands at offset {offset} of topic `{topic}` partition {partition}, which is not there: {cause}; records were deleted before they were read, or the topic was made anew. Look first; then set the group's offset by hand"
    )]
    LostRange {
        /// The consumer group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where the group stands.
        offset: Offset,
        /// The client's own words.
        cause: String,
    },
    /// Another producer has taken over our transactional id.
    #[error(
        "transactional id `{id}` was taken over by another producer: {cause}; two processes have the same `service.instance`, or this one was thought to be dead. Look first; nothing of it was lost"
    )]
    Fenced {
        /// The id.
        id: String,
        /// The client's own words.
        cause: String,
    },
    /// Another static member has our name.
    #[error(
        "group `{group}` has another member with the name of this one: {cause}; two processes have the same `stream.group_instance_id`. Look first; nothing of it was lost"
    )]
    FencedMember {
        /// The consumer group.
        group: String,
        /// The client's own words.
        cause: String,
    },
    /// The brokers are too old for the group protocol.
    #[error(
        "the brokers do not serve the group protocol `consumer` (KIP-848) for group `{group}`: {cause}; set `stream.group_protocol` to `classic`, or use Kafka 4.0 or newer"
    )]
    GroupProtocol {
        /// The consumer group.
        group: String,
        /// The client's own words.
        cause: String,
    },
    /// A transaction failed; what was in it is to be done again.
    #[error("{what}: {cause}")]
    Transaction {
        /// What was tried.
        what: String,
        /// The client's own words.
        cause: String,
    },
    /// A record was not delivered.
    #[error("{failed} records were not delivered to topic `{topic}`: {cause}")]
    Delivery {
        /// The topic of the first of them.
        topic: String,
        /// How many.
        failed: u64,
        /// The cause of the first of them.
        cause: String,
    },
    /// Something took longer than its bound.
    #[error("{what} took longer than {limit_ms} ms: {cause}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// The bound.
        limit_ms: u128,
        /// What the client saw last.
        cause: String,
    },
    /// What a handler depends on can not be used any more.
    #[error("{message}")]
    Fatal {
        /// The handler's words.
        message: String,
    },
    /// Something that can not be: a defect of ours, or of what we run in.
    #[error("{message}")]
    Halted {
        /// What.
        message: String,
    },
    /// Any other error of the client.
    #[error("{what}: {cause}")]
    Client {
        /// What was tried.
        what: String,
        /// The client's own words.
        cause: String,
        /// Whether the same call may succeed later.
        retriable: bool,
    },
}

impl StreamError {
    /// Whether trying again may help without anybody's doing.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::MissingTopic { .. }
            | Self::Transaction { .. } => true,
            Self::Client { retriable, .. } => *retriable,
            _ => false,
        }
    }

    /// Whether the error costs a unit of work, whose records are worked on again, and nothing more.
    pub(crate) fn costs_a_unit(&self) -> bool {
        matches!(
            self,
            Self::Delivery { .. } | Self::Timeout { .. } | Self::Transaction { .. } | Self::Brake { .. }
        )
    }

    /// Whether something was not acknowledged or answered in time.
    pub(crate) fn is_of_an_absent_broker(&self) -> bool {
        matches!(self, Self::Delivery { .. } | Self::Timeout { .. })
    }

    pub(crate) fn client(what: impl Into<String>, code: RDKafkaErrorCode) -> Self {
        let what = what.into();
        if is_authorization(code) {
            return Self::Authorization {
                what,
                cause: code.to_string(),
            };
        }
        Self::Client {
            what,
            cause: code.to_string(),
            retriable: is_retriable(code),
        }
    }
}

/// What became of records that were not delivered: worth another attempt through a new producer, or
/// refused for good, so that no attempt will help.
pub(crate) fn delivery_error(
    topic: String,
    failed: u64,
    code: RDKafkaErrorCode,
    message: &str,
) -> StreamError {
    use RDKafkaErrorCode as Code;
    let cause = format!("{message} ({code})");
    if is_authorization(code) {
        return StreamError::Authorization {
            what: format!("writing to topic `{topic}`"),
            cause,
        };
    }
    match code {
        Code::MessageSizeTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidMessage
        | Code::InvalidRecord
        | Code::InvalidTopic
        | Code::PolicyViolation
        | Code::UnsupportedForMessageFormat
        | Code::InvalidTimestamp
        | Code::InvalidRequiredAcks
        | Code::InvalidArgument => StreamError::Fatal {
            message: format!(
                "topic `{topic}` refuses a record for good: {cause}; compare its configuration with `orderflow topics apply`"
            ),
        },
        _ => StreamError::Delivery { topic, failed, cause },
    }
}

/// Errors of a group that no waiting mends: the configuration of its members has to change.
pub(crate) fn is_permanent_for_group(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::InconsistentGroupProtocol
            | Code::InvalidSessionTimeout
            | Code::InvalidGroupId
            | Code::GroupMaxSizeReached
            | Code::Fatal
    )
}

pub(crate) fn is_authorization(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
    )
}

/// Errors after which the same call may succeed: the broker is away, moves, or the group rebalances.
pub(crate) fn is_retriable(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::TimedOutQueue
            | Code::WaitingForCoordinator
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::NetworkException
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::UnstableOffsetCommit
    )
}

/// What an orchestrator is told when such an error ends a process.
impl From<StreamError> for service::Exit {
    fn from(error: StreamError) -> Self {
        let message = error.to_string();
        match error {
            StreamError::Config { .. } | StreamError::GroupProtocol { .. } => Self::config(message),
            StreamError::LostRange { .. } | StreamError::Fenced { .. } | StreamError::FencedMember { .. } => {
                Self::fenced(message)
            }
            StreamError::Halted { .. } | StreamError::Brake { .. } | StreamError::Stuck { .. } => {
                Self::bug(message)
            }
            StreamError::Client { retriable: false, .. } => Self::bug(message),
            StreamError::Unreachable { .. }
            | StreamError::Authentication { .. }
            | StreamError::Tls { .. }
            | StreamError::Fatal { .. }
            | StreamError::Authorization { .. }
            | StreamError::MissingTopic { .. }
            | StreamError::TooFewPartitions { .. }
            | StreamError::Delivery { .. }
            | StreamError::Transaction { .. }
            | StreamError::Timeout { .. }
            | StreamError::Client { .. } => Self::unavailable(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use RDKafkaErrorCode as Code;

    use super::*;

    #[test]
    fn a_refusal_for_good_is_told_from_one_that_a_new_producer_may_mend() {
        let class = |code| match delivery_error("t".to_owned(), 1, code, "words") {
            StreamError::Authorization { .. } => "authorization",
            StreamError::Fatal { .. } => "fatal",
            StreamError::Delivery { .. } => "again",
            other => panic!("{other}"),
        };
        for (code, wanted) in [
            (Code::TopicAuthorizationFailed, "authorization"),
            (Code::MessageSizeTooLarge, "fatal"),
            (Code::InvalidRecord, "fatal"),
            (Code::PolicyViolation, "fatal"),
            (Code::MessageTimedOut, "again"),
            (Code::NotEnoughReplicas, "again"),
            (Code::PurgeQueue, "again"),
            (Code::Unknown, "again"),
        ] {
            assert_eq!(class(code), wanted, "{code:?}");
        }
    }

    #[test]
    fn every_error_has_the_exit_code_that_tells_an_orchestrator_what_to_do() {
        let text = || "x".to_owned();
        let table = [
            (StreamError::Config { message: text() }, 64),
            (
                StreamError::Unreachable {
                    brokers: text(),
                    cause: text(),
                },
                69,
            ),
            (
                StreamError::Authentication {
                    brokers: text(),
                    cause: text(),
                },
                69,
            ),
            (
                StreamError::Tls {
                    brokers: text(),
                    cause: text(),
                },
                69,
            ),
            (StreamError::MissingTopic { topic: text() }, 69),
            (StreamError::Fatal { message: text() }, 69),
            (StreamError::Halted { message: text() }, 70),
            (
                StreamError::Client {
                    what: text(),
                    cause: text(),
                    retriable: true,
                },
                69,
            ),
            (
                StreamError::Client {
                    what: text(),
                    cause: text(),
                    retriable: false,
                },
                70,
            ),
        ];
        for (error, code) in table {
            let message = format!("{error:?}");
            assert_eq!(service::Exit::from(error).code(), code, "{message}");
        }
        let lost = StreamError::LostRange {
            group: text(),
            topic: text(),
            partition: 0,
            offset: Offset(7),
            cause: text(),
        };
        assert_eq!(service::Exit::from(lost).code(), 75);
        let member = StreamError::FencedMember {
            group: text(),
            cause: text(),
        };
        assert_eq!(service::Exit::from(member).code(), 75);
        let protocol = StreamError::GroupProtocol {
            group: text(),
            cause: text(),
        };
        assert_eq!(service::Exit::from(protocol).code(), 64);
        let fenced = StreamError::Fenced {
            id: text(),
            cause: text(),
        };
        assert_eq!(service::Exit::from(fenced).code(), 75);
    }
}
