package tollgate;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.TreeMap;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import tollgate.v1.Partials.Checkpoint;
import tollgate.v1.Partials.EndRecord;
import tollgate.v1.Partials.Partial;

/**
 * Reads both topics from their beginning to where they end now, and sums. Read committed, every breach of the contract
 * is a line of `problems`; the edges should be at rest, or the last checkpoint and the last end record may be of
 * different transactions.
 */
final class Sum {
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
        Sum sum = new Sum(options.has("counts") ? new Counts() : null);
        boolean committed;
        try (var reading = new Reading(options)) {
            reading.read(options.text("topic"), sum::take);
            reading.read(options.text("checkpoints"), sum::takeCheckpoint);
            sum.undecided = reading.undecided();
            committed = reading.committed();
        }
        if (sum.counts != null) {
            sum.counts.write(Path.of(options.text("counts")));
        }
        return sum.answer(committed);
    }

    private void take(ConsumerRecord<byte[], byte[]> record) {
        records++;
        try {
            String type = Reading.type(record, problems);
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
                default -> problems.add(Reading.place(record) + ": unknown type \"" + type + "\"");
            }
        } catch (com.google.protobuf.InvalidProtocolBufferException error) {
            problems.add(Reading.place(record) + ": does not decode: " + error.getMessage());
        }
    }

    private void takeCheckpoint(ConsumerRecord<byte[], byte[]> record) {
        records++;
        try {
            String type = Reading.type(record, problems);
            if (!type.equals("checkpoint")) {
                problems.add(Reading.place(record) + ": unknown type \"" + type + "\"");
                return;
            }
            Checkpoint checkpoint = Checkpoint.parseFrom(record.value());
            checkpoints++;
            known(record, checkpoint.getEdgeId()).checkpoint(checkpoint, record.partition());
        } catch (com.google.protobuf.InvalidProtocolBufferException error) {
            problems.add(Reading.place(record) + ": does not decode: " + error.getMessage());
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
            problems.add(Reading.place(record) + ": key \"" + key + "\", edge \"" + id + "\"");
        }
        return edges.computeIfAbsent(id, name -> new Edge(name, problems));
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
