package tollgate;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.function.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Topics read whole, at the isolation asked for. */
final class Reading implements AutoCloseable {
    private static final Duration POLL = Duration.ofMillis(200);
    /** Longer without a record, and the broker is taken for dead. */
    private static final Duration SILENCE_MAX = Duration.ofSeconds(20);

    private final boolean committed;
    private final KafkaConsumer<byte[], byte[]> consumer;
    private final KafkaConsumer<byte[], byte[]> all;
    private long undecided;

    Reading(Options options) throws IOException {
        String isolation = options.text("isolation");
        committed = isolation.equals("read_committed");
        if (!committed && !isolation.equals("read_uncommitted")) {
            throw new Options.Wrong("--isolation " + isolation + ": expected read_committed or read_uncommitted");
        }
        Properties properties = options.client();
        consumer = consumer(properties, isolation);
        all = consumer(properties, "read_uncommitted");
    }

    boolean committed() {
        return committed;
    }

    /** Offsets that a transaction not yet decided keeps from being read. */
    long undecided() {
        return undecided;
    }

    @Override
    public void close() {
        consumer.close();
        all.close();
    }

    private static KafkaConsumer<byte[], byte[]> consumer(Properties given, String isolation) {
        Properties properties = new Properties();
        properties.putAll(given);
        properties.put("isolation.level", isolation);
        properties.put("enable.auto.commit", "false");
        properties.put("auto.offset.reset", "none");
        properties.put("max.poll.records", "100000");
        properties.put("fetch.max.wait.ms", "50");
        properties.put("max.partition.fetch.bytes", "16777216");
        properties.putIfAbsent("default.api.timeout.ms", "20000");
        properties.putIfAbsent("request.timeout.ms", "20000");
        return new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    /** Gives each record of a topic, from its beginning to where it ends now. */
    void read(String topic, Consumer<ConsumerRecord<byte[], byte[]>> take) {
        List<TopicPartition> partitions = new ArrayList<>();
        for (PartitionInfo partition : consumer.partitionsFor(topic)) {
            partitions.add(new TopicPartition(topic, partition.partition()));
        }
        // Read committed, the end is that of the last transaction that is decided.
        Map<TopicPartition, Long> ends = new HashMap<>(consumer.endOffsets(partitions));
        all.endOffsets(partitions).forEach((partition, end) -> undecided += end - ends.get(partition));
        consumer.assign(partitions);
        consumer.seekToBeginning(partitions);
        long heard = System.nanoTime();
        while (!ends.isEmpty()) {
            var batch = consumer.poll(POLL);
            for (ConsumerRecord<byte[], byte[]> record : batch) {
                Long end = ends.get(new TopicPartition(topic, record.partition()));
                if (end != null && record.offset() < end) {
                    take.accept(record);
                }
            }
            // Past the marker of a transaction too, which is no record.
            boolean moved = ends.entrySet().removeIf(end -> consumer.position(end.getKey()) >= end.getValue());
            if (moved || !batch.isEmpty()) {
                heard = System.nanoTime();
            } else if (System.nanoTime() - heard > SILENCE_MAX.toNanos()) {
                throw new IllegalStateException("nothing came for " + SILENCE_MAX + ", these were left: " + ends);
            }
        }
    }

    /** The only header that there is. */
    static String type(ConsumerRecord<byte[], byte[]> record, Problems problems) {
        String type = "";
        for (Header header : record.headers()) {
            if (header.key().equals("type")) {
                type = new String(header.value(), StandardCharsets.UTF_8);
            } else {
                problems.add(place(record) + ": unknown header \"" + header.key() + "\"");
            }
        }
        return type;
    }

    static String place(ConsumerRecord<byte[], byte[]> record) {
        return record.topic() + "/" + record.partition() + "@" + record.offset();
    }
}
