//! A connection on which tests say exactly what they want to say.
#![allow(dead_code)]

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use devbroker::Broker;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub const DEADLINE: Duration = Duration::from_secs(20);

pub struct Wire {
    pub stream: TcpStream,
}

/// A producer id, its epoch and the sequence of the first record.
#[derive(Clone, Copy)]
pub struct Numbering {
    pub producer: i64,
    pub epoch: i16,
    pub sequence: i32,
}

pub const PLAIN: Numbering = Numbering {
    producer: -1,
    epoch: -1,
    sequence: -1,
};

/// An uncompressed batch of records with the value `value` and the time `timestamp`.
pub fn batch(records: i32, value: &[u8], timestamp: i64, numbering: Numbering) -> Bytes {
    let record = |index: i32| Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: numbering.producer,
        producer_epoch: numbering.epoch,
        timestamp_type: TimestampType::Creation,
        offset: i64::from(index),
        sequence: numbering.sequence + index,
        timestamp,
        key: None,
        value: Some(Bytes::copy_from_slice(value)),
        headers: Default::default(),
    };
    let records: Vec<Record> = (0..records).map(record).collect();
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions {
        version: 2,
        compression: Compression::None,
    };
    RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
    bytes.freeze()
}

impl Wire {
    pub async fn connect(broker: &Broker) -> Self {
        Self::to(&broker.address().to_string()).await
    }

    /// A connection to a broker of either kind, `host:port`.
    pub async fn to(address: &str) -> Self {
        Self {
            stream: TcpStream::connect(address).await.unwrap(),
        }
    }

    /// A connection of a user with a password, proven with PLAIN.
    pub async fn authenticated(address: &str, user: &str, password: &str) -> Self {
        let mut wire = Self::to(address).await;
        let plain = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("PLAIN"));
        assert_eq!(wire.call(1, &plain).await.error_code, 0);
        let answer = wire.prove(user, password).await;
        assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
        wire
    }

    /// Sends name and password, after a handshake.
    pub async fn prove(&mut self, user: &str, password: &str) -> SaslAuthenticateResponse {
        let token = Bytes::from(format!("\0{user}\0{password}"));
        self.call(2, &SaslAuthenticateRequest::default().with_auth_bytes(token))
            .await
    }

    pub async fn send<R: Request>(&mut self, version: i16, request: &R) {
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(1)
            .with_client_id(Some(StrBytes::from_static_str("wire")));
        let mut bytes = BytesMut::new();
        bytes.put_i32(0);
        header.encode(&mut bytes, R::header_version(version)).unwrap();
        request.encode(&mut bytes, version).unwrap();
        let length = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&bytes).await.unwrap();
    }

    pub async fn receive<A: Decodable + HeaderVersion>(&mut self, version: i16) -> A {
        let length = timeout(DEADLINE, self.stream.read_i32()).await.unwrap().unwrap();
        let mut bytes = vec![0; length as usize];
        self.stream.read_exact(&mut bytes).await.unwrap();
        let mut bytes = Bytes::from(bytes);
        ResponseHeader::decode(&mut bytes, A::header_version(version)).unwrap();
        A::decode(&mut bytes, version).unwrap()
    }

    pub async fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.send(version, request).await;
        self.receive(version).await
    }

    /// Whether the broker closes the connection, without a byte more.
    pub async fn is_closed(&mut self) -> bool {
        let mut byte = [0_u8; 1];
        match timeout(DEADLINE, self.stream.read(&mut byte)).await {
            Ok(Ok(0)) => true,
            Ok(Err(error)) => error.kind() == std::io::ErrorKind::ConnectionReset,
            _ => false,
        }
    }

    pub async fn produce(&mut self, topic: &str, batch: Bytes) -> PartitionProduceResponse {
        let response = self.call(9, &produce(topic, batch, -1)).await;
        response.responses[0].partition_responses[0].clone()
    }

    pub async fn fetch(&mut self, topic: &str, offset: i64, max_wait: Duration) -> PartitionData {
        let response = self.call(12, &fetch(topic, offset, max_wait)).await;
        response.responses[0].partitions[0].clone()
    }
}

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

pub fn produce(topic: &str, batch: Bytes, acks: i16) -> ProduceRequest {
    let partition = PartitionProduceData::default().with_records(Some(batch));
    let topic = TopicProduceData::default()
        .with_name(name(topic))
        .with_partition_data(vec![partition]);
    ProduceRequest::default()
        .with_transactional_id(None)
        .with_acks(acks)
        .with_timeout_ms(1_000)
        .with_topic_data(vec![topic])
}

pub fn fetch(topic: &str, offset: i64, max_wait: Duration) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20)
        .with_current_leader_epoch(-1);
    let topic = FetchTopic::default()
        .with_topic(name(topic))
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_max_wait_ms(max_wait.as_millis() as i32)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic])
}
