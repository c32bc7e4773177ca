package tollgate;

import com.google.protobuf.ByteString;
import com.google.protobuf.Descriptors.FieldDescriptor;
import com.google.protobuf.InvalidProtocolBufferException;
import java.io.IOException;
import java.io.Writer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import tollgate.v1.Partials.Click;

/**
 * Reads the topic of raw clicks: how many there are of each ad, and what breaks the contract, a click that occurs twice
 * above all. With --show, the fields of the clicks of one ad, bytes as hexadecimal digits.
 */
final class Raw {
    /** A click for ever. */
    private record Name(ByteString log, long lsn) {}

    private final Problems problems = new Problems();
    private final Map<String, Long> ads = new TreeMap<>();
    private final Map<String, Integer> partitions = new TreeMap<>();
    private final Set<Name> seen = new HashSet<>();
    private final Set<String> edges = new TreeSet<>();
    private final List<Map<String, Object>> shown = new ArrayList<>();
    private final String show;
    private long clicks;

    private Raw(String show) {
        this.show = show;
    }

    static Map<String, Object> run(Options options) throws IOException {
        Raw raw = new Raw(options.text("show", ""));
        Map<String, Object> answer = new LinkedHashMap<>();
        try (var reading = new Reading(options)) {
            reading.read(options.text("topic"), raw::take);
            answer.put("clicks", raw.clicks);
            answer.put("ads", raw.ads.size());
            answer.put("edges", raw.edges);
            answer.put("undecided", reading.undecided());
            // What is aborted is sent again.
            answer.put("problems", reading.committed() ? raw.problems.lines() : List.of());
            answer.put("shown", raw.shown);
        }
        if (options.has("counts")) {
            raw.write(Path.of(options.text("counts")));
        }
        return answer;
    }

    private void take(ConsumerRecord<byte[], byte[]> record) {
        String place = Reading.place(record);
        String type = Reading.type(record, problems);
        if (!type.equals("click")) {
            problems.add(place + ": unknown type \"" + type + "\"");
            return;
        }
        try {
            Click click = Click.parseFrom(record.value());
            String ad = click.getAdId();
            if (record.key() == null || !ad.equals(new String(record.key(), StandardCharsets.UTF_8))) {
                problems.add(place + ": the key is not the ad \"" + ad + "\"");
            }
            if (click.getFormatVersion() != 1) {
                problems.add(place + ": format_version " + click.getFormatVersion());
            }
            if (!click.getUnknownFields().asMap().isEmpty()) {
                problems.add(place + ": fields that the contract lacks");
            }
            if (!seen.add(new Name(click.getLogUuid(), click.getLsn()))) {
                problems.add(place + ": repeated: LSN " + click.getLsn() + " of log " + hex(click.getLogUuid()));
            }
            Integer partition = partitions.putIfAbsent(ad, record.partition());
            if (partition != null && partition != record.partition()) {
                problems.add(place + ": ad \"" + ad + "\" was in partition " + partition);
            }
            clicks++;
            edges.add(click.getEdgeId());
            ads.merge(ad, 1L, Long::sum);
            if (ad.equals(show)) {
                shown.add(fields(click));
            }
        } catch (InvalidProtocolBufferException error) {
            problems.add(place + ": does not decode: " + error.getMessage());
        }
    }

    private static Map<String, Object> fields(Click click) {
        Map<String, Object> fields = new LinkedHashMap<>();
        for (FieldDescriptor field : Click.getDescriptor().getFields()) {
            Object value = click.getField(field);
            fields.put(field.getName(), value instanceof ByteString bytes ? hex(bytes) : value);
        }
        return fields;
    }

    /** One line an ad: ad_id, clicks. */
    private void write(Path path) throws IOException {
        try (Writer file = Files.newBufferedWriter(path, StandardCharsets.UTF_8)) {
            for (var ad : ads.entrySet()) {
                file.write(ad.getKey() + "\t" + ad.getValue() + "\n");
            }
        }
    }

    private static String hex(ByteString bytes) {
        return HexFormat.of().formatHex(bytes.toByteArray());
    }
}
