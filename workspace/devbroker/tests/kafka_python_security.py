"""Run by kafka_python.rs with the broker's address and its authority: SASL_SSL and access rules."""

import ssl
import sys

from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    KafkaAdminClient,
    NewTopic,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)
from kafka.errors import KafkaError, TopicAuthorizationFailedError

ADDRESS, AUTHORITY = sys.argv[1:]
MECHANISMS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


def settings(mechanism, user, password):
    return {
        "bootstrap_servers": ADDRESS,
        "security_protocol": "SASL_SSL",
        "ssl_context": ssl.create_default_context(cadata=AUTHORITY),
        "sasl_mechanism": mechanism,
        "sasl_plain_username": user,
        "sasl_plain_password": password,
    }


def main():
    admin = KafkaAdminClient(**settings("PLAIN", "admin", "admin-secret"))
    admin.create_topics([NewTopic("orders", num_partitions=1, replication_factor=1)])

    producer = KafkaProducer(**settings("PLAIN", "app", "app-secret"))
    try:
        producer.send("orders", b"denied").get(10)
        raise AssertionError("a client without rights could write")
    except TopicAuthorizationFailedError:
        pass

    orders = ResourcePattern(ResourceType.TOPIC, "orders")
    rules = [
        ACL("User:app", "*", operation, ACLPermissionType.ALLOW, orders)
        for operation in (ACLOperation.READ, ACLOperation.WRITE)
    ]
    created = admin.create_acls(rules)
    assert not created["failed"], created
    named = ResourcePatternFilter(ResourceType.TOPIC, "orders", ACLResourcePatternType.ANY)
    wanted = ACLFilter(None, None, ACLOperation.ANY, ACLPermissionType.ANY, named)
    found, _error = admin.describe_acls(wanted)
    assert len(found) == 2, found

    for mechanism in MECHANISMS:
        producer = KafkaProducer(**settings(mechanism, "app", "app-secret"))
        producer.send("orders", mechanism.encode()).get(10)
        producer.close()
    consumer = KafkaConsumer(
        "orders",
        group_id=None,
        auto_offset_reset="earliest",
        consumer_timeout_ms=20_000,
        **settings("SCRAM-SHA-256", "app", "app-secret"),
    )
    assert [next(consumer).value.decode() for _ in MECHANISMS] == MECHANISMS
    consumer.close()

    for mechanism in MECHANISMS:
        try:
            KafkaAdminClient(bootstrap_timeout_ms=2_000, **settings(mechanism, "app", "wrong"))
            raise AssertionError("a wrong password was accepted")
        except KafkaError:
            pass
    print("done")


main()
