//! A generation at work: assignments, heartbeats, and who may commit.

use std::collections::HashMap;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

use super::group::{Group, Speaker, State, SyncRequest};
use super::member::{Reply, Synced, Ticket};
use crate::clock::Moment;

impl Group {
    pub(crate) fn sync(&mut self, now: Moment, request: SyncRequest, ticket: Ticket) {
        match self.try_sync(now, request, ticket) {
            Ok(None) => {}
            Ok(Some(synced)) => self.replies.push(Reply::Sync(ticket, Ok(synced))),
            Err(error) => self.replies.push(Reply::Sync(ticket, Err(error))),
        }
        self.advance(now);
    }

    fn try_sync(
        &mut self,
        now: Moment,
        request: SyncRequest,
        ticket: Ticket,
    ) -> Result<Option<Synced>, ResponseError> {
        self.check_member(&request.speaker)?;
        self.check_generation(&request.speaker)?;
        let differs = |said: &Option<String>, valid: &Option<String>| said.is_some() && said != valid;
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol, &self.protocol)
        {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        let id = request.speaker.member_id;
        match self.state {
            State::Empty => Err(ResponseError::UnknownMemberId),
            State::Preparing { .. } => Err(ResponseError::RebalanceInProgress),
            State::Stable => {
                let Some(member) = self.members.get_mut(&id) else {
                    return Err(ResponseError::UnknownMemberId);
                };
                member.heard(now);
                let assignment = member.assignment.clone();
                Ok(Some(self.synced(assignment)))
            }
            State::Completing { .. } => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.synced = true;
                    if let Some(former) = member.syncing.replace(ticket) {
                        self.replies
                            .push(Reply::Sync(former, Err(ResponseError::UnknownMemberId)));
                    }
                }
                if self.leader.as_ref() == Some(&id) {
                    self.hand_out(now, request.assignments);
                }
                Ok(None)
            }
        }
    }

    /// The leader decided: everybody who asked gets its part, the others get it when they ask.
    fn hand_out(&mut self, now: Moment, assignments: Vec<(String, Bytes)>) {
        let mut assignments: HashMap<String, Bytes> = assignments.into_iter().collect();
        self.state = State::Stable;
        let mut ready = Vec::new();
        for member in self.members.values_mut() {
            member.assignment = assignments.remove(&member.id).unwrap_or_default();
            if let Some(ticket) = member.syncing.take() {
                member.heard(now);
                ready.push((ticket, member.assignment.clone()));
            }
        }
        for (ticket, assignment) in ready {
            let synced = self.synced(assignment);
            self.replies.push(Reply::Sync(ticket, Ok(synced)));
        }
    }

    fn synced(&self, assignment: Bytes) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment,
        }
    }

    pub(crate) fn heartbeat(&mut self, now: Moment, speaker: &Speaker) -> Result<(), ResponseError> {
        self.advance(now);
        self.check_member(speaker)?;
        self.check_generation(speaker)?;
        if let Some(member) = self.members.get_mut(&speaker.member_id) {
            member.heard(now);
        }
        match self.state {
            State::Empty => Err(ResponseError::UnknownMemberId),
            State::Preparing { .. } => Err(ResponseError::RebalanceInProgress),
            State::Completing { .. } | State::Stable => Ok(()),
        }
    }

    /// Whether the speaker may commit offsets now. A negative generation is a client without
    /// membership, which may while the group has no members.
    pub(crate) fn check_commit(&mut self, now: Moment, speaker: &Speaker) -> Result<(), ResponseError> {
        self.advance(now);
        if speaker.generation < 0 && speaker.member_id.is_empty() && self.members.is_empty() {
            return Ok(());
        }
        self.check_member(speaker)?;
        self.check_generation(speaker)?;
        match self.state {
            State::Completing { .. } => Err(ResponseError::RebalanceInProgress),
            State::Empty => Err(ResponseError::UnknownMemberId),
            State::Preparing { .. } | State::Stable => {
                if let Some(member) = self.members.get_mut(&speaker.member_id) {
                    member.heard(now);
                }
                Ok(())
            }
        }
    }

    /// Whether the speaker may commit offsets in a transaction now. The transaction fences by itself,
    /// so a speaker who names no member is let through (KIP-447 brought the names), and a rebalance
    /// hinders nobody.
    pub(crate) fn check_transactional_commit(
        &mut self,
        now: Moment,
        speaker: &Speaker,
    ) -> Result<(), ResponseError> {
        self.advance(now);
        let names_nobody = speaker.member_id.is_empty() && speaker.instance_id.is_none();
        if speaker.generation < 0 && (names_nobody || self.members.is_empty()) {
            return Ok(());
        }
        self.check_member(speaker)?;
        self.check_generation(speaker)
    }

    fn check_member(&self, speaker: &Speaker) -> Result<(), ResponseError> {
        if let Some(instance) = &speaker.instance_id {
            match self.instances.get(instance) {
                None => return Err(ResponseError::UnknownMemberId),
                Some(id) if *id != speaker.member_id => return Err(ResponseError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if !self.members.contains_key(&speaker.member_id) {
            return Err(ResponseError::UnknownMemberId);
        }
        Ok(())
    }

    fn check_generation(&self, speaker: &Speaker) -> Result<(), ResponseError> {
        if speaker.generation == self.generation {
            Ok(())
        } else {
            Err(ResponseError::IllegalGeneration)
        }
    }
}
