//! SaslHandshake and SaslAuthenticate, which change what their connection may ask next.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};

use super::{RequestContext, text};
use crate::core::Core;
use crate::security::Session;

pub(super) fn handshake(
    core: &Core,
    context: &RequestContext,
    session: &mut Session,
    request: &SaslHandshakeRequest,
) -> SaslHandshakeResponse {
    let answer = SaslHandshakeResponse::default();
    let served = core.guard.handshake(session, context.version, &request.mechanism);
    let error = match served {
        Ok(true) => None,
        Ok(false) => Some(ResponseError::UnsupportedSaslMechanism),
        // A connection that is known, or a broker without SASL: Kafka does not name mechanisms then.
        Err(_) => return answer.with_error_code(ResponseError::IllegalSaslState.code()),
    };
    let mechanisms = core.guard.mechanisms().map(text).collect();
    answer
        .with_error_code(error.map_or(0, |error| error.code()))
        .with_mechanisms(mechanisms)
}

pub(super) fn authenticate(
    core: &Core,
    session: &mut Session,
    request: &SaslAuthenticateRequest,
) -> SaslAuthenticateResponse {
    let answer = SaslAuthenticateResponse::default();
    match core.guard.authenticate(session, &request.auth_bytes) {
        None => answer
            .with_error_code(ResponseError::IllegalSaslState.code())
            .with_error_message(Some(text(
                "SaslAuthenticate request received after successful authentication",
            ))),
        Some(Ok(token)) => answer.with_auth_bytes(token.into()),
        Some(Err(refused)) => answer
            .with_error_code(ResponseError::SaslAuthenticationFailed.code())
            .with_error_message(Some(text(&refused.message))),
    }
}
