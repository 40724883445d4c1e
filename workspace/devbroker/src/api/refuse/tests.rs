//! Each version of each request is refused, and the error is where a client looks for it.

use bytes::Buf;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Decodable;

use super::*;
use crate::conformance::decode;
use crate::options::Options;
use crate::samples;
use crate::topic_config::TopicConfig;
use crate::versions::SUPPORTED;

fn core() -> Core {
    let core = Core::in_memory(Options::default());
    core.topics
        .create("topic", 1, TopicConfig::default(), false)
        .unwrap();
    core
}

/// The body of the answer to the sample of a request.
fn refused(core: &Core, key: ApiKey, version: i16, error: ResponseError) -> Bytes {
    let context = samples::context(key, version);
    let answer = refuse(core, &context, samples::request(key, version), error).unwrap();
    let Answer::Frame(frame) = answer else {
        panic!("{key:?} {version}: no frame");
    };
    let mut frame = frame.unwrap();
    let mut bytes = frame.copy_to_bytes(frame.remaining());
    assert_eq!(bytes.get_i32() as usize, bytes.len());
    let header = ResponseHeader::decode(&mut bytes, key.response_header_version(version)).unwrap();
    assert_eq!(header.correlation_id, 42);
    bytes
}

#[test]
fn every_advertised_version_of_every_request_is_refused_in_its_own_format() {
    let core = core();
    for api in SUPPORTED {
        for version in api.min..=api.max {
            let body = refused(&core, api.key, version, ResponseError::PolicyViolation);
            let (words, rest) = decode(api.key, version, body);
            assert!(
                rest.is_empty(),
                "{:?} {version}: {} bytes too many",
                api.key,
                rest.len()
            );
            assert!(
                words.contains("error_code: 44"),
                "{:?} {version} does not say the error: {words}",
                api.key
            );
        }
    }
}

#[test]
fn an_error_is_told_of_what_it_is_about() {
    let core = core();
    // Of the group, in the form for several groups and in the older one.
    let answer = |version, error| {
        let mut body = refused(&core, ApiKey::OffsetFetch, version, error);
        OffsetFetchResponse::decode(&mut body, version).unwrap()
    };
    let moved = answer(9, ResponseError::NotCoordinator);
    assert_eq!(
        (moved.groups[0].error_code, moved.groups[0].topics.len()),
        (16, 0)
    );
    assert_eq!(answer(7, ResponseError::NotCoordinator).error_code, 16);
    // Version 1 has a place at the partitions only.
    let oldest = answer(1, ResponseError::NotCoordinator);
    assert_eq!(oldest.topics[0].partitions[1].error_code, 16);
    // Of partitions, in all versions.
    let unstable = answer(9, ResponseError::UnstableOffsetCommit);
    assert_eq!(unstable.groups[0].error_code, 0);
    assert_eq!(unstable.groups[0].topics[0].partitions[1].error_code, 88);
    let unstable = answer(7, ResponseError::UnstableOffsetCommit);
    assert_eq!(
        (unstable.error_code, unstable.topics[0].partitions[0].error_code),
        (0, 88)
    );

    let fetched = |error| {
        let mut body = refused(&core, ApiKey::Fetch, 12, error);
        FetchResponse::decode(&mut body, 12).unwrap()
    };
    let moved = fetched(ResponseError::NotLeaderOrFollower);
    assert_eq!(moved.error_code, 0);
    assert_eq!(moved.responses[0].partitions[0].error_code, 6);
    let no_session = fetched(ResponseError::FetchSessionIdNotFound);
    assert_eq!((no_session.error_code, no_session.responses.len()), (70, 0));

    let left = |error| {
        let mut body = refused(&core, ApiKey::LeaveGroup, 5, error);
        LeaveGroupResponse::decode(&mut body, 5).unwrap()
    };
    assert_eq!(left(ResponseError::UnknownMemberId).members[0].error_code, 25);
    assert_eq!(left(ResponseError::CoordinatorNotAvailable).error_code, 15);
}

#[test]
fn refused_metadata_still_says_where_the_broker_is() {
    let core = core();
    let mut body = refused(&core, ApiKey::Metadata, 12, ResponseError::LeaderNotAvailable);
    let metadata = MetadataResponse::decode(&mut body, 12).unwrap();
    assert_eq!(metadata.brokers.len(), 1);
    assert!(metadata.topics.iter().all(|topic| topic.error_code == 5));
    assert!(!metadata.topics.is_empty());
}

#[test]
fn what_wants_no_answer_is_refused_by_closing() {
    let request = ProduceRequest::default().with_acks(0);
    let answer = records::produce(
        &samples::context(ApiKey::Produce, 9),
        request,
        ResponseError::NotLeaderOrFollower,
    );
    assert!(matches!(answer, Ok(Answer::Close(_))));
}
