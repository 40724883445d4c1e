"""Run by kafka_python.rs with the broker's address: the pure-Python client's view of the broker."""

import sys

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

ADDRESS = sys.argv[1]
COUNT = 2000


def main():
    admin = KafkaAdminClient(bootstrap_servers=ADDRESS)
    admin.create_topics([NewTopic("orders", num_partitions=3, replication_factor=1)])
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
    admin.delete_topics(["orders"])
    assert "orders" not in admin.list_topics()
    print("done")


main()
