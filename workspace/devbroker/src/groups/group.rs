//! The state machine of one classic consumer group.
//!
//! Members join, a generation is formed when all of them did (or when the time for it is over), the
//! leader hands out assignments, and everybody works until something changes. At each moment one
//! generation is valid, and only its members are heard; a request of an older generation changes
//! nothing. The rules and error codes are those of Kafka's `GroupCoordinator` for classic groups.
//!
//! Pure: time comes with each call, in order; a request that has to wait is known by a ticket, and
//! its answer is in [`Group::take_replies`] after some later call. [`Group::next_deadline`] says
//! when [`Group::advance`] has something to do.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use indexmap::IndexMap;
use kafka_protocol::error::ResponseError;

use super::member::{JoinRefused, Member, Reply};
use crate::clock::Moment;

#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupSettings {
    pub(crate) initial_rebalance_delay: Duration,
    pub(crate) max_size: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nobody is a member.
    Empty,
    /// Members are asked to join the next generation.
    Preparing {
        deadline: Moment,
        first: Option<FirstRebalance>,
    },
    /// The generation is formed; the leader's assignment is awaited.
    Completing { deadline: Moment },
    /// Everybody can have an assignment.
    Stable,
}

/// The first rebalance of an empty group waits for others to come, a little longer for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FirstRebalance {
    pub(super) remaining: Duration,
    pub(super) someone_came: bool,
}

#[derive(Debug)]
pub(crate) struct Group {
    pub(super) id: String,
    pub(super) settings: GroupSettings,
    pub(super) state: State,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    /// In the order of joining.
    pub(super) members: IndexMap<String, Member>,
    /// Static members: instance id to member id.
    pub(super) instances: HashMap<String, String>,
    /// Ids that were given out and not used yet, and when they lapse.
    pub(super) pending: BTreeMap<String, Moment>,
    pub(super) replies: Vec<Reply>,
}

/// Who speaks, in every request but the first.
#[derive(Debug, Clone)]
pub(crate) struct Speaker {
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) generation: i32,
}

#[derive(Debug, Clone)]
pub(crate) struct SyncRequest {
    pub(crate) speaker: Speaker,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    /// From the leader.
    pub(crate) assignments: Vec<(String, Bytes)>,
}

/// A member's own words about itself, for DescribeGroups.
#[derive(Debug, Clone)]
pub(crate) struct DescribedMember {
    pub(crate) id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) metadata: Bytes,
    pub(crate) assignment: Bytes,
}

#[derive(Debug, Clone)]
pub(crate) struct Description {
    pub(crate) state: &'static str,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) members: Vec<DescribedMember>,
}

impl Group {
    pub(crate) fn new(id: String, settings: GroupSettings) -> Self {
        Self {
            id,
            settings,
            state: State::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: IndexMap::new(),
            instances: HashMap::new(),
            pending: BTreeMap::new(),
            replies: Vec::new(),
        }
    }

    /// Answers that became ready, each ticket at most once.
    pub(crate) fn take_replies(&mut self) -> Vec<Reply> {
        std::mem::take(&mut self.replies)
    }

    /// Nobody is a member, and nobody is about to be.
    pub(crate) fn is_empty(&self) -> bool {
        self.state == State::Empty && self.pending.is_empty()
    }

    pub(crate) fn state_name(&self) -> &'static str {
        match self.state {
            State::Empty => "Empty",
            State::Preparing { .. } => "PreparingRebalance",
            State::Completing { .. } => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }

    pub(crate) fn describe(&self) -> Description {
        let stable = self.state == State::Stable;
        let members = self.members.values().map(|member| DescribedMember {
            id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: if stable {
                member.metadata(self.protocol.as_deref())
            } else {
                Bytes::new()
            },
            assignment: if stable {
                member.assignment.clone()
            } else {
                Bytes::new()
            },
        });
        Description {
            state: self.state_name(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: self.protocol.clone().filter(|_| stable).unwrap_or_default(),
            members: members.collect(),
        }
    }

    /// A member leaves; a static one may be named by its instance id alone.
    pub(crate) fn leave(
        &mut self,
        now: Moment,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), ResponseError> {
        let mut id = member_id.to_owned();
        if let Some(instance) = instance_id {
            let known = self
                .instances
                .get(instance)
                .ok_or(ResponseError::UnknownMemberId)?;
            if !member_id.is_empty() && known != member_id {
                return Err(ResponseError::FencedInstanceId);
            }
            id = known.clone();
        }
        if self.pending.remove(&id).is_none() {
            if !self.members.contains_key(&id) {
                return Err(ResponseError::UnknownMemberId);
            }
            tracing::info!(group = self.id, member = id, "member left");
            self.remove(now, &id);
        }
        self.advance(now);
        Ok(())
    }

    /// The coordinator's memory of a member is gone: it hears that it is unknown, and the others
    /// rebalance. Returns whether it was known.
    pub(crate) fn lose_member(&mut self, now: Moment, id: &str) -> bool {
        let was_pending = self.pending.remove(id).is_some();
        let was_member = self.members.contains_key(id);
        if was_member {
            self.remove(now, id);
        }
        was_pending || was_member
    }

    /// The coordinator's memory of the group is gone: who waits hears that it is unknown, as does
    /// everybody who speaks of the generation that was.
    pub(crate) fn lose_all(&mut self) {
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            self.forget(&id);
        }
        let fresh = Self::new(self.id.clone(), self.settings);
        let replies = std::mem::take(&mut self.replies);
        *self = Self { replies, ..fresh };
    }

    pub(super) fn remove(&mut self, now: Moment, id: &str) {
        self.forget(id);
        self.rebalance(now);
    }

    pub(super) fn forget(&mut self, id: &str) {
        let Some(member) = self.members.shift_remove(id) else {
            return;
        };
        let error = ResponseError::UnknownMemberId;
        if let Some(ticket) = member.joining {
            let refused = JoinRefused {
                error,
                member_id: id.to_owned(),
            };
            self.replies.push(Reply::Join(ticket, Err(refused)));
        }
        if let Some(ticket) = member.syncing {
            self.replies.push(Reply::Sync(ticket, Err(error)));
        }
        if let Some(instance) = &member.instance_id {
            self.instances.remove(instance);
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// When [`Group::advance`] must be called at the latest.
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        let state = match self.state {
            State::Preparing { deadline, .. } | State::Completing { deadline } => Some(deadline),
            State::Empty | State::Stable => None,
        };
        let sessions = self.members.values().filter_map(Member::deadline);
        self.pending.values().copied().chain(state).chain(sessions).min()
    }

    /// Does what is due: ids lapse, silent members are removed, generations are formed.
    pub(crate) fn advance(&mut self, now: Moment) {
        self.pending.retain(|_, deadline| *deadline > now);
        let late = |member: &&Member| member.deadline().is_some_and(|deadline| deadline <= now);
        let silent: Vec<String> = self
            .members
            .values()
            .filter(late)
            .map(|member| member.id.clone())
            .collect();
        for id in silent {
            tracing::info!(
                group = self.id,
                member = id,
                "member removed: nothing was heard for its session time-out"
            );
            self.remove(now, &id);
        }
        if let State::Completing { deadline } = self.state
            && deadline <= now
        {
            self.drop_unsynced(now);
        }
        if let State::Preparing { deadline, first } = self.state {
            match first {
                None if deadline <= now || self.all_joined() => self.form_generation(now),
                Some(first) if deadline <= now => self.end_first_rebalance(now, first),
                _ => {}
            }
        }
    }
}
