//! One member of a group, and what members are told.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

use crate::clock::Moment;

/// Names a request that waits for the group: the shell keeps who asked.
pub(crate) type Ticket = u64;

/// A protocol that a member can work with, and what it says under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub(crate) name: String,
    pub(crate) metadata: Bytes,
}

/// A wish to be a member.
#[derive(Debug, Clone)]
pub(crate) struct JoinRequest {
    /// Empty for a member that has no id yet.
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) protocol_type: String,
    pub(crate) protocols: Vec<Protocol>,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    /// The id that the member gets if it has none.
    pub(crate) fresh_id: String,
    /// Whether a new member must come again with its id before it counts (KIP-394).
    pub(crate) id_required: bool,
    /// Whether the client understands "you lead, and need not assign" (KIP-814).
    pub(crate) may_skip_assignment: bool,
}

/// What the members of a generation get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: String,
    pub(crate) member_id: String,
    /// For the leader: everybody's metadata.
    pub(crate) members: Vec<JoinedMember>,
    pub(crate) skip_assignment: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinedMember {
    pub(crate) id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) metadata: Bytes,
}

/// A join that was refused, and the member id that the client should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinRefused {
    pub(crate) error: ResponseError,
    pub(crate) member_id: String,
}

/// What a member may work on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) assignment: Bytes,
}

pub(crate) type JoinReply = Result<Joined, JoinRefused>;
pub(crate) type SyncReply = Result<Synced, ResponseError>;

/// An answer to a request that waited, or to the one that just came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Join(Ticket, JoinReply),
    Sync(Ticket, SyncReply),
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) protocols: Vec<Protocol>,
    pub(crate) assignment: Bytes,
    /// Waits for the next generation.
    pub(crate) joining: Option<Ticket>,
    /// Waits for the leader's assignment.
    pub(crate) syncing: Option<Ticket>,
    /// Whether it asked for its assignment in this generation.
    pub(crate) synced: bool,
    /// When it is taken for dead, unless it waits for the group.
    pub(crate) session_deadline: Moment,
    /// Never was in a generation.
    pub(crate) is_new: bool,
}

/// A new member whose client went away while it waits is dropped after this; Kafka's constant.
const NEW_MEMBER_JOIN_TIMEOUT: Duration = Duration::from_secs(300);

impl Member {
    pub(crate) fn new(id: String, request: JoinRequest, ticket: Ticket, now: Moment) -> Self {
        Self {
            id,
            instance_id: request.instance_id,
            client_id: request.client_id,
            client_host: request.client_host,
            session_timeout: request.session_timeout,
            rebalance_timeout: request.rebalance_timeout,
            protocols: request.protocols,
            assignment: Bytes::new(),
            joining: Some(ticket),
            syncing: None,
            synced: false,
            session_deadline: now + NEW_MEMBER_JOIN_TIMEOUT,
            is_new: true,
        }
    }

    /// Takes over what a member says about itself when it joins again.
    pub(crate) fn update(&mut self, request: JoinRequest) {
        self.client_id = request.client_id;
        self.client_host = request.client_host;
        self.session_timeout = request.session_timeout;
        self.rebalance_timeout = request.rebalance_timeout;
        self.protocols = request.protocols;
    }

    pub(crate) fn heard(&mut self, now: Moment) {
        self.session_deadline = now + self.session_timeout;
    }

    pub(crate) fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|known| known.name == protocol)
    }

    pub(crate) fn metadata(&self, protocol: Option<&str>) -> Bytes {
        let known = self
            .protocols
            .iter()
            .find(|known| Some(known.name.as_str()) == protocol);
        known.map(|known| known.metadata.clone()).unwrap_or_default()
    }

    /// When silence of this member has a consequence. One that waits for the group is alive: its
    /// request is with us.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        let waits = self.joining.is_some() || self.syncing.is_some();
        (!waits || self.is_new).then_some(self.session_deadline)
    }
}
