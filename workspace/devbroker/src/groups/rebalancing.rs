//! How a generation is formed: who is waited for, who leads, which protocol is chosen.

use std::time::Duration;

use bytes::Bytes;
use indexmap::IndexMap;
use kafka_protocol::error::ResponseError;

use super::group::{FirstRebalance, Group, State};
use super::member::{Joined, JoinedMember, Member, Reply};
use crate::clock::Moment;

impl Group {
    fn rebalance_timeout(&self) -> Duration {
        self.members
            .values()
            .map(|member| member.rebalance_timeout)
            .max()
            .unwrap_or_default()
    }

    /// Begins to form a new generation, unless that is under way.
    pub(super) fn rebalance(&mut self, now: Moment) {
        let timeout = self.rebalance_timeout();
        match self.state {
            State::Preparing { .. } => {}
            State::Empty => {
                let delay = self.settings.initial_rebalance_delay;
                let first = FirstRebalance {
                    remaining: timeout.saturating_sub(delay),
                    someone_came: false,
                };
                self.state = State::Preparing {
                    deadline: now + delay,
                    first: Some(first),
                };
            }
            State::Completing { .. } => {
                for member in self.members.values_mut() {
                    member.assignment = Bytes::new();
                    if let Some(ticket) = member.syncing.take() {
                        member.heard(now);
                        self.replies
                            .push(Reply::Sync(ticket, Err(ResponseError::RebalanceInProgress)));
                    }
                }
                self.state = State::Preparing {
                    deadline: now + timeout,
                    first: None,
                };
            }
            State::Stable => {
                self.state = State::Preparing {
                    deadline: now + timeout,
                    first: None,
                }
            }
        }
    }

    pub(super) fn all_joined(&self) -> bool {
        self.pending.is_empty() && self.members.values().all(|member| member.joining.is_some())
    }

    /// Forms the generation of those who joined.
    pub(super) fn form_generation(&mut self, now: Moment) {
        let absent = |member: &&Member| member.joining.is_none() && member.instance_id.is_none();
        let gone: Vec<String> = self
            .members
            .values()
            .filter(absent)
            .map(|member| member.id.clone())
            .collect();
        for id in gone {
            tracing::info!(
                group = self.id,
                member = id,
                "member removed: it did not join in time"
            );
            self.forget(&id);
        }
        if self.members.is_empty() {
            self.generation += 1;
            self.protocol = None;
            self.leader = None;
            self.state = State::Empty;
            tracing::info!(group = self.id, generation = self.generation, "group is empty");
            return;
        }
        let timeout = self.rebalance_timeout();
        if !self.elect_leader() {
            // Only static members, none of whom came back: they keep their places for now.
            self.state = State::Preparing {
                deadline: now + timeout,
                first: None,
            };
            return;
        }
        self.generation += 1;
        self.protocol = self.select_protocol();
        self.state = State::Completing {
            deadline: now + timeout,
        };
        tracing::info!(
            group = self.id,
            generation = self.generation,
            members = self.members.len(),
            protocol = self.protocol,
            "group formed a generation"
        );
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let joined = self.joined(&id, self.leader.as_ref() == Some(&id));
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            member.synced = false;
            member.is_new = false;
            if let Some(ticket) = member.joining.take() {
                member.heard(now);
                self.replies.push(Reply::Join(ticket, Ok(joined)));
            }
        }
    }

    /// Keeps the leader if it joined, else takes the first who did; false if nobody did.
    fn elect_leader(&mut self) -> bool {
        let joined = |id: &String| {
            self.members
                .get(id)
                .is_some_and(|member| member.joining.is_some())
        };
        if self.leader.as_ref().is_some_and(joined) {
            return true;
        }
        let first = self.members.values().find(|member| member.joining.is_some());
        let Some(first) = first else { return false };
        self.leader = Some(first.id.clone());
        true
    }

    /// Each member votes for the first of its protocols that all can work with.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let common = |name: &str| self.members.values().all(|member| member.supports(name));
        let mut votes: IndexMap<&str, usize> = IndexMap::new();
        for member in self.members.values() {
            let choice = member
                .protocols
                .iter()
                .map(|protocol| protocol.name.as_str())
                .find(|name| common(name));
            if let Some(choice) = choice {
                *votes.entry(choice).or_default() += 1;
            }
        }
        let most = votes.values().copied().max()?;
        votes
            .iter()
            .find(|(_, count)| **count == most)
            .map(|(name, _)| (*name).to_owned())
    }

    pub(super) fn joined(&self, id: &str, with_members: bool) -> Joined {
        let protocol = self.protocol.as_deref();
        let described = self.members.values().map(|member| JoinedMember {
            id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(protocol),
        });
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: id.to_owned(),
            members: if with_members {
                described.collect()
            } else {
                Vec::new()
            },
            skip_assignment: false,
        }
    }

    pub(super) fn drop_unsynced(&mut self, now: Moment) {
        let unsynced = |member: &&Member| !member.synced;
        let late: Vec<String> = self
            .members
            .values()
            .filter(unsynced)
            .map(|member| member.id.clone())
            .collect();
        for id in late {
            tracing::info!(
                group = self.id,
                member = id,
                "member removed: it did not ask for its assignment in time"
            );
            self.forget(&id);
        }
        self.rebalance(now);
    }

    pub(super) fn end_first_rebalance(&mut self, now: Moment, first: FirstRebalance) {
        if first.someone_came && !first.remaining.is_zero() {
            let delay = self.settings.initial_rebalance_delay.min(first.remaining);
            if !delay.is_zero() {
                let first = FirstRebalance {
                    remaining: first.remaining.saturating_sub(delay),
                    someone_came: false,
                };
                self.state = State::Preparing {
                    deadline: now + delay,
                    first: Some(first),
                };
                return;
            }
        }
        self.form_generation(now);
    }
}
