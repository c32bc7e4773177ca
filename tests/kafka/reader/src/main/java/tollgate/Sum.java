package tollgate;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.function.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import tollgate.v1.Partials.Checkpoint;
import tollgate.v1.Partials.EndRecord;
import tollgate.v1.Partials.Partial;

/**
 * Reads both topics from their beginning to where they end now, and sums. Read committed, every breach of the contract
 * is a line of `problems`; the edges should be at rest, or the last checkpoint and the last end record may be of
 * different transactions.
 */
final class Sum {
    private static final Duration POLL = Duration.ofMillis(200);
    /** Longer without a record, and the broker is taken for dead. */
    private static final Duration SILENCE_MAX = Duration.ofSeconds(20);

    private final Problems problems = new Problems();
    private final Map<String, Edge> edges = new TreeMap<>();
    private final Counts counts;
    private long records;
    private long partials;
    private long ends;
    private long checkpoints;
    private long clicks;
    /** Offsets that a transaction not yet decided keeps from being read. */
    private long undecided;

    private Sum(Counts counts) {
        this.counts = counts;
    }

    static Map<String, Object> run(Options options) throws IOException {
        Properties properties = options.client();
        String isolation = options.text("isolation");
        boolean committed = isolation.equals("read_committed");
        if (!committed && !isolation.equals("read_uncommitted")) {
            throw new Options.Wrong("--isolation " + isolation + ": expected read_committed or read_uncommitted");
        }
        Sum sum = new Sum(options.has("counts") ? new Counts() : null);
        try (var consumer = consumer(properties, isolation); var all = consumer(properties, "read_uncommitted")) {
            sum.read(consumer, all, options.text("topic"), sum::take);
            sum.read(consumer, all, options.text("checkpoints"), sum::takeCheckpoint);
        }
        if (sum.counts != null) {
            sum.counts.write(Path.of(options.text("counts")));
        }
        return sum.answer(committed);
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

    private void read(
            KafkaConsumer<byte[], byte[]> consumer,
            KafkaConsumer<byte[], byte[]> all,
            String topic,
            Consumer<ConsumerRecord<byte[], byte[]>> take) {
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

    private void take(ConsumerRecord<byte[], byte[]> record) {
        records++;
        try {
            String type = type(record);
            switch (type) {
                case "partial" -> {
                    Partial partial = Partial.parseFrom(record.value());
                    partials++;
                    clicks += partial.getClicks();
                    if (counts != null) {
                        counts.add(partial);
                    }
                    edge(record, partial.getEdgeId()).partial(partial, record.value());
                }
                case "end" -> {
                    EndRecord end = EndRecord.parseFrom(record.value());
                    ends++;
                    edge(record, end.getEdgeId()).end(end);
                }
                default -> problems.add(place(record) + ": unknown type \"" + type + "\"");
            }
        } catch (com.google.protobuf.InvalidProtocolBufferException error) {
            problems.add(place(record) + ": does not decode: " + error.getMessage());
        }
    }

    private void takeCheckpoint(ConsumerRecord<byte[], byte[]> record) {
        records++;
        try {
            String type = type(record);
            if (!type.equals("checkpoint")) {
                problems.add(place(record) + ": unknown type \"" + type + "\"");
                return;
            }
            Checkpoint checkpoint = Checkpoint.parseFrom(record.value());
            checkpoints++;
            known(record, checkpoint.getEdgeId()).checkpoint(checkpoint, record.partition());
        } catch (com.google.protobuf.InvalidProtocolBufferException error) {
            problems.add(place(record) + ": does not decode: " + error.getMessage());
        }
    }

    private Edge edge(ConsumerRecord<byte[], byte[]> record, String id) {
        Edge edge = known(record, id);
        edge.in(record.partition());
        return edge;
    }

    private Edge known(ConsumerRecord<byte[], byte[]> record, String id) {
        String key = record.key() == null ? "" : new String(record.key(), StandardCharsets.UTF_8);
        if (!key.equals(id)) {
            problems.add(place(record) + ": key \"" + key + "\", edge \"" + id + "\"");
        }
        return edges.computeIfAbsent(id, name -> new Edge(name, problems));
    }

    /** The only header that there is. */
    private String type(ConsumerRecord<byte[], byte[]> record) {
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

    private static String place(ConsumerRecord<byte[], byte[]> record) {
        return record.topic() + "/" + record.partition() + "@" + record.offset();
    }

    private Map<String, Object> answer(boolean committed) {
        Map<String, Object> answer = new LinkedHashMap<>();
        answer.put("records", records);
        answer.put("partials", partials);
        answer.put("ends", ends);
        answer.put("clicks", clicks);
        answer.put("checkpoint_records", checkpoints);
        answer.put("undecided", undecided);
        if (committed) {
            Map<String, Object> last = new LinkedHashMap<>();
            Map<String, Object> each = new LinkedHashMap<>();
            edges.forEach((id, edge) -> {
                edge.finish();
                edge.lastCheckpoint().ifPresent(checkpoint -> last.put(id, checkpoint));
                each.put(id, edge.answer());
            });
            answer.put("checkpoints", last);
            answer.put("edges", each);
            answer.put("problems", problems.lines());
        }
        return answer;
    }
}
