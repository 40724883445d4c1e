"""Run by confluent_client.rs with the broker's address: librdkafka's binding for Python, a line for each thing seen."""

import sys
import time

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

ADDRESS = sys.argv[1]
COUNT = 2000
DEADLINE_S = 30


def say(what, seen):
    print(f"{what}: {seen}")


def settings(**more):
    return {"bootstrap.servers": ADDRESS, **{key.replace("_", "."): value for key, value in more.items()}}


def consumer(group):
    reader = settings(group_id=group, auto_offset_reset="earliest", enable_auto_commit=False)
    return Consumer({**reader, "isolation.level": "read_committed"})


def read(reader, count):
    records, deadline = [], time.monotonic() + DEADLINE_S
    while len(records) < count:
        assert time.monotonic() < deadline, f"only {len(records)} of {count} records came"
        for record in reader.consume(500, timeout=0.2):
            assert record.error() is None, record.error()
            records.append(record)
    return records


def topics(admin):
    made = admin.create_topics([NewTopic("orders", 2, 1), NewTopic("payments", 1, 1)])
    for future in made.values():
        future.result()
    admin.create_partitions([NewPartitions("orders", 3)])["orders"].result()
    # librdkafka's own view of the cluster may be a moment behind.
    deadline = time.monotonic() + DEADLINE_S
    known = admin.list_topics(timeout=10).topics
    while len(known["orders"].partitions) < 3 and time.monotonic() < deadline:
        known = admin.list_topics(timeout=10).topics
    say("partitions", [len(known[name].partitions) for name in ("orders", "payments")])
    say("nodes", len(admin.describe_cluster().result().nodes))
    change = ConfigEntry("retention.ms", "7200000", incremental_operation=AlterConfigOpType.SET)
    orders = ConfigResource(ResourceType.TOPIC, "orders", incremental_configs=[change])
    admin.incremental_alter_configs([orders])[orders].result()
    orders = ConfigResource(ResourceType.TOPIC, "orders")
    say("retention.ms", admin.describe_configs([orders])[orders].result()["retention.ms"].value)


def produces_and_consumes():
    values = {f"order-{index}" for index in range(COUNT)}
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        producer = Producer(settings(enable_idempotence=True, compression_type=codec))
        for value in values:
            producer.produce("orders", value, key=value)
        say(f"left to send with {codec}", producer.flush(DEADLINE_S))
    reader = consumer("readers")
    reader.subscribe(["orders"])
    records = read(reader, 5 * COUNT)
    say("records", len(records))
    say("all values", {record.value().decode() for record in records} == values)
    reader.commit(asynchronous=False)
    committed = reader.committed([TopicPartition("orders", number) for number in range(3)], 10)
    say("committed", sum(partition.offset for partition in committed))
    reader.close()


def copies_in_transactions():
    reader = consumer("copiers")
    reader.subscribe(["orders"])
    records = read(reader, 5 * COUNT)
    producer = Producer(settings(transactional_id="copier"))
    producer.init_transactions(DEADLINE_S)
    for commits in (False, True):
        producer.begin_transaction()
        for record in records:
            producer.produce("payments", record.value(), key=record.key())
            producer.poll(0)
        positions = reader.position(reader.assignment())
        # An abort would throw away what is not sent yet, and the log would be of any length.
        producer.flush(DEADLINE_S)
        producer.send_offsets_to_transaction(positions, reader.consumer_group_metadata(), DEADLINE_S)
        if commits:
            producer.commit_transaction(DEADLINE_S)
        else:
            producer.abort_transaction(DEADLINE_S)
        committed = reader.committed(reader.assignment(), 10)
        total = sum(partition.offset for partition in committed if partition.offset >= 0)
        say("offsets after the " + ("commit" if commits else "abort"), total)
    reader.close()
    auditor = consumer("auditors")
    auditor.subscribe(["payments"])
    copies = read(auditor, 5 * COUNT)
    say("copies", len(copies))
    say("more copies", len(auditor.consume(10, timeout=0.5)))
    auditor.close()


def is_fenced():
    first, second = (Producer(settings(transactional_id="twin")) for _ in range(2))
    first.init_transactions(DEADLINE_S)
    first.begin_transaction()
    first.produce("payments", "of the first")
    first.flush(DEADLINE_S)
    second.init_transactions(DEADLINE_S)
    try:
        first.commit_transaction(DEADLINE_S)
        say("the first instance", "committed")
    except KafkaException as failure:
        error = failure.args[0]
        say("the first instance", f"fatal {error.fatal()}, {error.name()}")


def listings(admin):
    payments = TopicPartition("payments", 0)
    latest = admin.list_offsets({payments: OffsetSpec.latest()}, isolation_level=IsolationLevel.READ_COMMITTED)
    say("last stable offset", latest[payments].result().offset)
    deleted = admin.delete_records([TopicPartition("payments", 0, 100)])
    say("start after deleting", next(iter(deleted.values())).result().low_watermark)
    groups = {group.group_id for group in admin.list_consumer_groups().result().valid}
    say("groups", sorted(groups & {"auditors", "copiers", "readers"}))
    say("state", admin.describe_consumer_groups(["copiers"])["copiers"].result().state.name)
    wanted = ConsumerGroupTopicPartitions("copiers")
    positions = admin.list_consumer_group_offsets([wanted])["copiers"].result().topic_partitions
    say("partitions with offsets", len(positions))
    admin.delete_consumer_groups(["auditors"])["auditors"].result()
    left = {group.group_id for group in admin.list_consumer_groups().result().valid}
    say("one group less", "auditors" not in left)
    for future in admin.delete_topics(["orders", "payments"]).values():
        future.result()


def main():
    admin = AdminClient(settings())
    topics(admin)
    produces_and_consumes()
    copies_in_transactions()
    is_fenced()
    listings(admin)


main()
