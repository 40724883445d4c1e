"""Run by kafka_python.rs with the broker's address: the pure-Python client's view of the broker."""

import sys

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

ADDRESS = sys.argv[1]
COUNT = 2000


def main():
    admin = KafkaAdminClient(bootstrap_servers=ADDRESS)
    admin.create_topics([NewTopic("orders", num_partitions=3, replication_factor=1)])
    admin.create_topics([NewTopic("payments", num_partitions=1, replication_factor=1)])
    assert "orders" in admin.list_topics(), admin.list_topics()

    producer = KafkaProducer(bootstrap_servers=ADDRESS, acks="all", compression_type="gzip")
    deliveries = [
        producer.send("orders", key=b"%d" % i, value=b"order-%d" % i, timestamp_ms=1_600_000_000_000 + i)
        for i in range(COUNT)
    ]
    producer.flush(timeout=20)
    places = {(d.get(10).partition, d.get(10).offset) for d in deliveries}
    assert len(places) == COUNT, len(places)

    consumer = KafkaConsumer(
        "orders",
        bootstrap_servers=ADDRESS,
        group_id="python",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        consumer_timeout_ms=20_000,
    )
    seen = {}
    for record in consumer:
        seen[(record.partition, record.offset)] = record
        if len(seen) == COUNT:
            break
    assert set(seen) == places
    assert {r.value for r in seen.values()} == {b"order-%d" % i for i in range(COUNT)}
    consumer.commit()
    committed = sum(consumer.committed(TopicPartition("orders", p)) for p in range(3))
    assert committed == COUNT, committed

    partition = TopicPartition("orders", 0)
    first = min(r.offset for r in seen.values() if r.partition == 0 and r.timestamp >= 1_600_000_001_000)
    found = consumer.offsets_for_times({partition: 1_600_000_001_000})
    assert found[partition].offset == first, (found, first)
    assert sum(consumer.end_offsets([TopicPartition("orders", p) for p in range(3)]).values()) == COUNT
    consumer.close()

    producer.send("orders", value=b"late").get(10)
    resumed = KafkaConsumer(
        "orders",
        bootstrap_servers=ADDRESS,
        group_id="python",
        auto_offset_reset="earliest",
        consumer_timeout_ms=20_000,
    )
    assert next(resumed).value == b"late"
    resumed.close()
    copies_in_transactions()
    is_fenced()
    groups(admin)
    admin.delete_topics(["orders"])
    assert "orders" not in admin.list_topics()
    print("done")


def transactional(name):
    producer = KafkaProducer(bootstrap_servers=ADDRESS, transactional_id=name)
    producer.init_transactions()
    return producer


def committed_reader(topic, group):
    return KafkaConsumer(
        topic,
        bootstrap_servers=ADDRESS,
        group_id=group,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        consumer_timeout_ms=20_000,
    )


def take(consumer, count):
    records = [record for _, record in zip(range(count), consumer)]
    assert len(records) == count, len(records)
    return records


def copies_in_transactions():
    reader = committed_reader("orders", "python-copiers")
    records = take(reader, COUNT + 1)
    offsets = {
        TopicPartition("orders", partition): OffsetAndMetadata(
            1 + max(r.offset for r in records if r.partition == partition), "", -1
        )
        for partition in range(3)
    }
    producer = transactional("python-copier")
    for commits in (False, True):
        producer.begin_transaction()
        for record in records:
            producer.send("payments", key=record.key, value=record.value)
        producer.send_offsets_to_transaction(offsets, reader.group_metadata())
        if commits:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
        stored = [reader.committed(partition) for partition in offsets]
        expected = [offsets[partition].offset if commits else None for partition in offsets]
        assert stored == expected, (stored, expected)
    reader.close()
    auditor = committed_reader("payments", "python-auditors")
    copies = take(auditor, COUNT + 1)
    assert {r.value for r in copies} == {r.value for r in records}
    assert not auditor.poll(timeout_ms=300)
    auditor.close()
    producer.close()


def is_fenced():
    first = transactional("python-twin")
    first.begin_transaction()
    first.send("payments", value=b"of the first").get(10)
    second = transactional("python-twin")
    try:
        first.commit_transaction()
        raise AssertionError("the first instance was not fenced")
    except KafkaError as error:
        assert "Fenced" in type(error).__name__ or "Epoch" in type(error).__name__, error
    second.close()


def groups(admin):
    described = admin.describe_groups(["python-copiers"])["python-copiers"]
    assert described["group_state"] == "Empty", described
    listed = {group["group_id"] for group in admin.list_groups()}
    assert {"python", "python-copiers", "python-auditors"} <= listed, listed
    admin.delete_groups(["python-auditors"])
    listed = {group["group_id"] for group in admin.list_groups()}
    assert "python-auditors" not in listed, listed
    payments = TopicPartition("payments", 0)
    admin.delete_records({payments: 10})
    start = KafkaConsumer(bootstrap_servers=ADDRESS).beginning_offsets([payments])[payments]
    assert start == 10, start
    admin.delete_topics(["payments"])


main()
