import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TransactionListing;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Run by java_client.rs with the broker's address: prints what Kafka's own client sees, a line each. */
public class JavaClient {
    private static final Duration DEADLINE = Duration.ofSeconds(30);
    private static final int COUNT = 500;
    private final String address;

    private JavaClient(String address) {
        this.address = address;
    }

    public static void main(String[] arguments) throws Exception {
        JavaClient client = new JavaClient(arguments[0]);
        try (Admin admin = Admin.create(client.settings())) {
            client.topics(admin);
            client.producesAndConsumes();
            client.copiesInTransactions();
            client.isFenced();
            client.listings(admin);
        }
    }

    private static void say(String what, Object seen) {
        System.out.println(what + ": " + seen);
    }

    private Properties settings(String... pairs) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", address);
        for (int index = 0; index < pairs.length; index += 2) {
            settings.put(pairs[index], pairs[index + 1]);
        }
        return settings;
    }

    private KafkaProducer<String, String> producer(String... pairs) {
        return new KafkaProducer<>(settings(pairs), new StringSerializer(), new StringSerializer());
    }

    private KafkaConsumer<String, String> consumer(String group) {
        Properties settings =
                settings(
                        "group.id", group,
                        "isolation.level", "read_committed",
                        "auto.offset.reset", "earliest",
                        "enable.auto.commit", "false");
        return new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer());
    }

    private static List<ConsumerRecord<String, String>> read(KafkaConsumer<String, String> consumer, int count) {
        List<ConsumerRecord<String, String>> records = new ArrayList<>();
        long deadline = System.nanoTime() + DEADLINE.toNanos();
        while (records.size() < count) {
            if (System.nanoTime() > deadline) {
                throw new IllegalStateException("only " + records.size() + " of " + count + " records came");
            }
            consumer.poll(Duration.ofMillis(100)).forEach(records::add);
        }
        return records;
    }

    private void topics(Admin admin) throws Exception {
        admin.createTopics(
                        List.of(
                                new NewTopic("orders", 2, (short) 1).configs(Map.of("retention.ms", "3600000")),
                                new NewTopic("payments", 1, (short) 1)))
                .all()
                .get();
        admin.createPartitions(Map.of("orders", NewPartitions.increaseTo(3))).all().get();
        say("topics", admin.listTopics().names().get().containsAll(Set.of("orders", "payments")));
        say("partitions", admin.describeTopics(Set.of("orders")).allTopicNames().get().get("orders").partitions().size());
        say("nodes", admin.describeCluster().nodes().get().size());
        say("has a controller", admin.describeCluster().controller().get() != null);
        ConfigResource orders = new ConfigResource(ConfigResource.Type.TOPIC, "orders");
        say("retention.ms", setting(admin, orders, "retention.ms"));
        AlterConfigOp set = new AlterConfigOp(new ConfigEntry("retention.ms", "7200000"), AlterConfigOp.OpType.SET);
        admin.incrementalAlterConfigs(Map.of(orders, List.of(set))).all().get();
        long deadline = System.nanoTime() + DEADLINE.toNanos();
        while (!setting(admin, orders, "retention.ms").equals("7200000") && System.nanoTime() < deadline) {
            Thread.sleep(10);
        }
        say("retention.ms after the change", setting(admin, orders, "retention.ms"));
        try {
            admin.createTopics(List.of(new NewTopic("orders", 1, (short) 1))).all().get();
        } catch (ExecutionException error) {
            say("the same topic again", error.getCause().getClass().getSimpleName());
        }
    }

    private static String setting(Admin admin, ConfigResource resource, String name) throws Exception {
        return admin.describeConfigs(Set.of(resource)).all().get().get(resource).get(name).value();
    }

    /** An idempotent producer with each codec, and a group that reads all of it. */
    private void producesAndConsumes() throws Exception {
        Set<String> sent = new TreeSet<>();
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            try (KafkaProducer<String, String> producer =
                    producer("enable.idempotence", "true", "acks", "all", "compression.type", codec)) {
                for (int index = 0; index < COUNT; index++) {
                    String value = codec + "-" + index;
                    sent.add(value);
                    producer.send(new ProducerRecord<>("orders", value, value));
                }
            }
        }
        try (KafkaConsumer<String, String> consumer = consumer("readers")) {
            consumer.subscribe(List.of("orders"));
            List<ConsumerRecord<String, String>> records = read(consumer, 5 * COUNT);
            Set<String> values = records.stream().map(ConsumerRecord::value).collect(Collectors.toCollection(TreeSet::new));
            say("records", records.size());
            say("each of them once", values.equals(sent) && values.size() == records.size());
            consumer.commitSync();
            long committed =
                    consumer.committed(consumer.assignment()).values().stream().mapToLong(OffsetAndMetadata::offset).sum();
            say("committed", committed);
        }
    }

    /** Copies with offsets in the transaction; every second transaction is aborted. */
    private void copiesInTransactions() {
        try (KafkaConsumer<String, String> consumer = consumer("copiers");
                KafkaProducer<String, String> producer = producer("transactional.id", "copier")) {
            producer.initTransactions();
            consumer.subscribe(List.of("orders"));
            List<ConsumerRecord<String, String>> records = read(consumer, 5 * COUNT);
            for (boolean commits : new boolean[] {false, true}) {
                producer.beginTransaction();
                Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
                for (ConsumerRecord<String, String> record : records) {
                    producer.send(new ProducerRecord<>("payments", record.key(), record.value()));
                    offsets.put(
                            new TopicPartition(record.topic(), record.partition()),
                            new OffsetAndMetadata(record.offset() + 1));
                }
                // An abort would throw away what is not sent yet, and the log would be of any length.
                producer.flush();
                producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
                if (commits) {
                    producer.commitTransaction();
                } else {
                    producer.abortTransaction();
                }
                say(commits ? "offsets after the commit" : "offsets after the abort", sum(consumer));
            }
        }
        try (KafkaConsumer<String, String> consumer = consumer("auditors")) {
            consumer.subscribe(List.of("payments"));
            List<ConsumerRecord<String, String>> records = read(consumer, 5 * COUNT);
            say("copies", records.size());
            say("different ones", records.stream().map(ConsumerRecord::value).distinct().count());
            // Beside the records: those that were aborted, and two markers.
            say("last offset", records.get(records.size() - 1).offset());
            say("more copies", consumer.poll(Duration.ofMillis(300)).count());
        }
    }

    private static long sum(KafkaConsumer<String, String> consumer) {
        return consumer.committed(consumer.assignment()).values().stream()
                .filter(offset -> offset != null)
                .mapToLong(OffsetAndMetadata::offset)
                .sum();
    }

    private void isFenced() {
        try (KafkaProducer<String, String> first = producer("transactional.id", "twin");
                KafkaProducer<String, String> second = producer("transactional.id", "twin")) {
            first.initTransactions();
            first.beginTransaction();
            first.send(new ProducerRecord<>("payments", "of the first"));
            first.flush();
            second.initTransactions();
            second.beginTransaction();
            second.send(new ProducerRecord<>("payments", "of the second"));
            second.commitTransaction();
            try {
                first.commitTransaction();
                say("the first instance", "committed");
            } catch (RuntimeException error) {
                say("the first instance", error.getClass().getSimpleName());
            }
        }
    }

    private static long offset(Admin admin, TopicPartition partition, OffsetSpec spec, IsolationLevel isolation)
            throws Exception {
        return admin.listOffsets(Map.of(partition, spec), new ListOffsetsOptions(isolation))
                .all()
                .get()
                .get(partition)
                .offset();
    }

    private void listings(Admin admin) throws Exception {
        TopicPartition payments = new TopicPartition("payments", 0);
        long deadline = System.nanoTime() + DEADLINE.toNanos();
        // The marker of the last transaction follows the answer to its commit.
        while (offset(admin, payments, OffsetSpec.latest(), IsolationLevel.READ_COMMITTED)
                        != offset(admin, payments, OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED)
                && System.nanoTime() < deadline) {
            Thread.sleep(10);
        }
        say("earliest", offset(admin, payments, OffsetSpec.earliest(), IsolationLevel.READ_COMMITTED));
        say("latest", offset(admin, payments, OffsetSpec.latest(), IsolationLevel.READ_COMMITTED));
        long start =
                admin.deleteRecords(Map.of(payments, RecordsToDelete.beforeOffset(100)))
                        .lowWatermarks()
                        .get(payments)
                        .get()
                        .lowWatermark();
        say("start after deleting", start);
        Set<String> ours = Set.of("auditors", "copiers", "readers");
        Set<String> groups =
                admin.listGroups().all().get().stream()
                        .map(group -> group.groupId())
                        .filter(ours::contains)
                        .collect(Collectors.toCollection(TreeSet::new));
        say("groups", groups);
        say("state", admin.describeConsumerGroups(Set.of("copiers")).all().get().get("copiers").groupState());
        admin.deleteConsumerGroupOffsets("copiers", Set.of(new TopicPartition("orders", 0))).all().get();
        Set<TopicPartition> left =
                admin.listConsumerGroupOffsets("copiers").partitionsToOffsetAndMetadata().get().keySet();
        say("offsets left", left.stream().map(TopicPartition::partition).collect(Collectors.toCollection(TreeSet::new)));
        admin.deleteConsumerGroups(Set.of("auditors")).all().get();
        say("one group less", !admin.listGroups().all().get().stream().anyMatch(group -> group.groupId().equals("auditors")));
        Map<String, String> transactions = new TreeMap<>();
        for (TransactionListing one : admin.listTransactions().all().get()) {
            if (Set.of("copier", "twin").contains(one.transactionalId())) {
                transactions.put(one.transactionalId(), one.state().toString());
            }
        }
        say("transactions", transactions);
        say("described", admin.describeTransactions(Set.of("copier")).all().get().get("copier").state());
        say(
                "producers of payments",
                admin.describeProducers(Set.of(payments)).all().get().get(payments).activeProducers().size());
        admin.deleteTopics(Set.of("orders", "payments")).all().get();
    }
}
