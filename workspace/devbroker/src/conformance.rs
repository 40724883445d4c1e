//! Each advertised version of each request, over a real socket: answered, and readable to the end.

use bytes::{Buf, Bytes};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::Decodable;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::samples;
use crate::versions::SUPPORTED;
use crate::{Broker, Options};

async fn call(stream: &mut TcpStream, key: ApiKey, version: i16, body: &[u8]) -> Bytes {
    let request = samples::frame(key, version, 7_000 + i32::from(version), body);
    let length = request.len() as u32;
    stream.write_all(&length.to_be_bytes()).await.unwrap();
    stream.write_all(&request).await.unwrap();
    let length = stream
        .read_i32()
        .await
        .unwrap_or_else(|error| panic!("{key:?} {version}: {error}"));
    let mut response = vec![0; length as usize];
    stream.read_exact(&mut response).await.unwrap();
    let mut response = Bytes::from(response);
    let header = ResponseHeader::decode(&mut response, key.response_header_version(version)).unwrap();
    assert_eq!(header.correlation_id, 7_000 + i32::from(version));
    response
}

/// Decodes a response and returns it in words, and what is left of its bytes.
pub(crate) fn decode(key: ApiKey, version: i16, mut body: Bytes) -> (String, Bytes) {
    macro_rules! response {
        ($($name:ident => $response:ty),* $(,)?) => {
            match key {
                $(ApiKey::$name => format!("{:?}", <$response>::decode(&mut body, version).unwrap()),)*
                other => panic!("no decoder for {other:?}"),
            }
        };
    }
    let words = response! {
        Produce => ProduceResponse, Fetch => FetchResponse, ListOffsets => ListOffsetsResponse,
        Metadata => MetadataResponse, OffsetCommit => OffsetCommitResponse,
        OffsetFetch => OffsetFetchResponse, FindCoordinator => FindCoordinatorResponse,
        JoinGroup => JoinGroupResponse, Heartbeat => HeartbeatResponse, LeaveGroup => LeaveGroupResponse,
        SyncGroup => SyncGroupResponse, DescribeGroups => DescribeGroupsResponse,
        ListGroups => ListGroupsResponse, ApiVersions => ApiVersionsResponse,
        CreateTopics => CreateTopicsResponse, DeleteTopics => DeleteTopicsResponse,
        DeleteRecords => DeleteRecordsResponse, InitProducerId => InitProducerIdResponse,
        OffsetForLeaderEpoch => OffsetForLeaderEpochResponse, DescribeConfigs => DescribeConfigsResponse,
        CreatePartitions => CreatePartitionsResponse, DeleteGroups => DeleteGroupsResponse,
        DescribeCluster => DescribeClusterResponse, AddPartitionsToTxn => AddPartitionsToTxnResponse,
        AddOffsetsToTxn => AddOffsetsToTxnResponse, EndTxn => EndTxnResponse,
        TxnOffsetCommit => TxnOffsetCommitResponse,
        SaslHandshake => SaslHandshakeResponse,
        SaslAuthenticate => SaslAuthenticateResponse, DescribeAcls => DescribeAclsResponse,
        CreateAcls => CreateAclsResponse, DeleteAcls => DeleteAclsResponse,
        DescribeProducers => DescribeProducersResponse, ListTransactions => ListTransactionsResponse,
        DescribeTransactions => DescribeTransactionsResponse, AlterConfigs => AlterConfigsResponse,
        IncrementalAlterConfigs => IncrementalAlterConfigsResponse, OffsetDelete => OffsetDeleteResponse,
    };
    (words, body)
}

#[tokio::test]
async fn every_advertised_version_is_answered_in_its_own_format() {
    let broker = Broker::start(Options::default()).await.unwrap();
    broker.create_topic("topic", 1).unwrap();
    let mut stream = TcpStream::connect(broker.address()).await.unwrap();
    for api in SUPPORTED {
        for version in api.min..=api.max {
            let body = samples::request(api.key, version);
            let response = call(&mut stream, api.key, version, &body).await;
            let (_, rest) = decode(api.key, version, response);
            assert!(
                rest.is_empty(),
                "{:?} {version}: {} bytes too many",
                api.key,
                rest.remaining()
            );
        }
    }
    assert_eq!(broker.stats().malformed_total, 0);
    broker.stop().await;
}

/// What is refused has other fields set than what is accepted, and must be encodable too.
#[tokio::test]
async fn every_advertised_version_is_answered_about_things_that_do_not_exist() {
    let broker = Broker::start(Options::default()).await.unwrap();
    let mut stream = TcpStream::connect(broker.address()).await.unwrap();
    for api in SUPPORTED {
        for version in api.min..=api.max {
            let body = samples::request(api.key, version);
            let response = call(&mut stream, api.key, version, &body).await;
            assert!(decode(api.key, version, response).1.is_empty());
        }
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_version_of_api_versions_that_is_too_new_is_answered_in_version_0() {
    let broker = Broker::start(Options::default()).await.unwrap();
    let mut stream = TcpStream::connect(broker.address()).await.unwrap();
    let body = samples::request(ApiKey::ApiVersions, 3);
    let mut response = call(&mut stream, ApiKey::ApiVersions, 99, &body).await;
    let versions = ApiVersionsResponse::decode(&mut response, 0).unwrap();
    assert_eq!(versions.error_code, 35);
    assert_eq!(versions.api_keys.len(), SUPPORTED.len());
    // The connection lives on.
    call(&mut stream, ApiKey::ApiVersions, 3, &body).await;
}
