//! Carries a fault out, around the handling of a request.
//!
//! Delays are of real time: they are there for the client, which has no other.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::sleep;

use super::plan::Header;
use super::{Fault, Strike};
use crate::api::{self, Answer, Malformed, RequestContext};
use crate::core::Core;
use crate::security::Session;

impl Strike {
    /// Counts the fault as having struck.
    pub(super) fn done(&self) {
        self.struck.send_modify(|struck| *struck += 1);
    }
}

/// Answers a request, with whatever fault meets it.
pub(crate) async fn answer(
    core: &Arc<Core>,
    context: &RequestContext,
    session: &mut Session,
    body: Bytes,
) -> Result<Answer, Malformed> {
    let names = || api::names::of(context, &body);
    let request = Header {
        api: context.key,
        client_id: &context.client_id,
        client_is_known: session.principal().is_some(),
    };
    match core.faults.strike(&request, names) {
        None => api::answer(core, context, session, body).await,
        Some(strike) => struck(core, context, session, body, strike).await,
    }
}

async fn struck(
    core: &Arc<Core>,
    context: &RequestContext,
    session: &mut Session,
    body: Bytes,
    strike: Strike,
) -> Result<Answer, Malformed> {
    tracing::info!(
        id = strike.id,
        fault = strike.fault.name(),
        api = ?context.key,
        client_id = context.client_id,
        peer = %context.peer,
        "an injected fault strikes"
    );
    if strike.fault != Fault::DropAfter {
        strike.done();
    }
    match strike.fault {
        Fault::AnswerError(error) => api::refuse(core, context, body, error),
        Fault::Delay(delay) => {
            sleep(delay).await;
            api::answer(core, context, session, body).await
        }
        Fault::DelayAnswer(delay) => {
            let answer = api::answer(core, context, session, body).await;
            sleep(delay).await;
            answer
        }
        Fault::DropBefore => Ok(Answer::Drop(strike.fault.name())),
        Fault::DropAfter => {
            drop(api::answer(core, context, session, body).await?);
            strike.done();
            Ok(Answer::Drop(strike.fault.name()))
        }
        Fault::StopReading => {
            tokio::select! {
                () = strike.removed.cancelled() => api::answer(core, context, session, body).await,
                () = sleep(core.options.connection_idle_timeout) => Ok(Answer::Drop(strike.fault.name())),
            }
        }
    }
}
