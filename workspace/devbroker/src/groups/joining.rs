//! How members come in: new ones, returning ones, and static ones that take their former place.

use kafka_protocol::error::ResponseError;

use super::group::{Group, State};
use super::member::{JoinRefused, JoinRequest, Member, Reply, Ticket};
use crate::clock::Moment;

/// Protocols that one member may offer, and what it may say under all of them together. Kafka has no
/// such limits; clients have one to three protocols and a list of topics.
const MAX_PROTOCOLS: usize = 64;
const MAX_METADATA_BYTES: usize = 4 * 1024 * 1024;

impl Group {
    pub(crate) fn join(&mut self, now: Moment, request: JoinRequest, ticket: Ticket) {
        let member_id = request.member_id.clone();
        if let Err(error) = self.try_join(now, request, ticket) {
            let refused = match error {
                Refused::Simply(error) => JoinRefused { error, member_id },
                Refused::WithId(error, member_id) => JoinRefused { error, member_id },
            };
            self.replies.push(Reply::Join(ticket, Err(refused)));
        }
        self.advance(now);
    }

    fn try_join(&mut self, now: Moment, request: JoinRequest, ticket: Ticket) -> Result<(), Refused> {
        if !self.fits(&request) {
            return Err(Refused::Simply(ResponseError::InconsistentGroupProtocol));
        }
        let known = request
            .instance_id
            .as_ref()
            .and_then(|instance| self.instances.get(instance))
            .cloned();
        if request.member_id.is_empty() {
            return match known {
                Some(former) => {
                    self.replace_static(now, &former, request, ticket);
                    Ok(())
                }
                None => self.admit(now, request, ticket),
            };
        }
        if known.is_some_and(|known| known != request.member_id) {
            return Err(Refused::Simply(ResponseError::FencedInstanceId));
        }
        if self.pending.contains_key(&request.member_id) {
            self.check_size()?;
            self.pending.remove(&request.member_id);
            let id = request.member_id.clone();
            self.add(now, id, request, ticket);
            return Ok(());
        }
        self.rejoin(now, request, ticket)
    }

    /// Whether the member can work with those who are there.
    fn fits(&self, request: &JoinRequest) -> bool {
        if request.protocol_type.is_empty() || request.protocols.is_empty() {
            return false;
        }
        let said: usize = request
            .protocols
            .iter()
            .map(|protocol| protocol.metadata.len())
            .sum();
        if request.protocols.len() > MAX_PROTOCOLS || said > MAX_METADATA_BYTES {
            return false;
        }
        // A member that joins again replaces what it said before, so it is not compared with itself.
        let others = || {
            self.members
                .values()
                .filter(|member| member.id != request.member_id)
        };
        if self.state == State::Empty || others().next().is_none() {
            return true;
        }
        self.protocol_type.as_ref() == Some(&request.protocol_type)
            && request
                .protocols
                .iter()
                .any(|protocol| others().all(|member| member.supports(&protocol.name)))
    }

    fn check_size(&self) -> Result<(), Refused> {
        if self.members.len() >= self.settings.max_size {
            return Err(Refused::Simply(ResponseError::GroupMaxSizeReached));
        }
        Ok(())
    }

    /// Somebody new, without an id.
    fn admit(&mut self, now: Moment, request: JoinRequest, ticket: Ticket) -> Result<(), Refused> {
        self.check_size()?;
        let id = request.fresh_id.clone();
        if request.id_required && request.instance_id.is_none() {
            if self.members.len() + self.pending.len() >= self.settings.max_size {
                return Err(Refused::Simply(ResponseError::GroupMaxSizeReached));
            }
            self.pending.insert(id.clone(), now + request.session_timeout);
            return Err(Refused::WithId(ResponseError::MemberIdRequired, id));
        }
        self.add(now, id, request, ticket);
        Ok(())
    }

    fn add(&mut self, now: Moment, id: String, request: JoinRequest, ticket: Ticket) {
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.clone());
        }
        if let Some(instance) = &request.instance_id {
            self.instances.insert(instance.clone(), id.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.members
            .insert(id.clone(), Member::new(id, request, ticket, now));
        if let State::Preparing {
            first: Some(first), ..
        } = &mut self.state
        {
            first.someone_came = true;
        }
        self.rebalance(now);
    }

    /// A known member, with its id.
    fn rejoin(&mut self, now: Moment, request: JoinRequest, ticket: Ticket) -> Result<(), Refused> {
        let id = request.member_id.clone();
        let is_leader = self.leader.as_ref() == Some(&id);
        let Some(member) = self.members.get_mut(&id) else {
            return Err(Refused::Simply(ResponseError::UnknownMemberId));
        };
        member.heard(now);
        let unchanged = member.protocols == request.protocols;
        let repeated = match self.state {
            // A lost answer: the member gets it once more.
            State::Completing { .. } => unchanged,
            // A leader that joins again wants a rebalance, for the topics changed.
            State::Stable => unchanged && !is_leader,
            State::Preparing { .. } | State::Empty => false,
        };
        if repeated {
            let joined = self.joined(&id, is_leader);
            self.replies.push(Reply::Join(ticket, Ok(joined)));
            return Ok(());
        }
        member.update(request);
        self.wait_for_generation(&id, ticket);
        self.rebalance(now);
        Ok(())
    }

    /// A static member came back without its id: it takes its former self's place.
    fn replace_static(&mut self, now: Moment, former: &str, request: JoinRequest, ticket: Ticket) {
        let Some((place, _, mut member)) = self.members.shift_remove_full(former) else {
            return;
        };
        self.fence(&mut member);
        let id = request.fresh_id.clone();
        let former_leader = self.leader.clone();
        let is_leader = former_leader.as_deref() == Some(former);
        if is_leader {
            self.leader = Some(id.clone());
        }
        if let Some(instance) = &request.instance_id {
            self.instances.insert(instance.clone(), id.clone());
        }
        let selected = self.protocol.as_deref();
        let may_skip = request.may_skip_assignment;
        member.id = id.clone();
        member.update(request);
        member.heard(now);
        // What it says may differ, as of a cooperative member that owns nothing yet: Kafka compares only which
        // protocol the group would use.
        let unchanged =
            self.state == State::Stable && selected.is_some_and(|protocol| member.supports(protocol));
        self.members.shift_insert(place, id.clone(), member);
        if unchanged && self.select_protocol() == self.protocol {
            let mut joined = self.joined(&id, is_leader && may_skip);
            if may_skip {
                joined.skip_assignment = is_leader;
            } else {
                // An older client that reads its own id here would assign anew, and nobody would hear.
                joined.leader = former_leader.unwrap_or_default();
            }
            self.replies.push(Reply::Join(ticket, Ok(joined)));
            return;
        }
        self.wait_for_generation(&id, ticket);
        self.rebalance(now);
    }

    /// Tells a former self that it was replaced.
    fn fence(&mut self, member: &mut Member) {
        let error = ResponseError::FencedInstanceId;
        if let Some(ticket) = member.joining.take() {
            let refused = JoinRefused {
                error,
                member_id: member.id.clone(),
            };
            self.replies.push(Reply::Join(ticket, Err(refused)));
        }
        if let Some(ticket) = member.syncing.take() {
            self.replies.push(Reply::Sync(ticket, Err(error)));
        }
    }

    /// The member waits; an earlier request of its own that still waited is answered with an error.
    pub(super) fn wait_for_generation(&mut self, id: &str, ticket: Ticket) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        if let Some(former) = member.joining.replace(ticket) {
            let refused = JoinRefused {
                error: ResponseError::UnknownMemberId,
                member_id: id.to_owned(),
            };
            self.replies.push(Reply::Join(former, Err(refused)));
        }
    }
}

enum Refused {
    Simply(ResponseError),
    WithId(ResponseError, String),
}
