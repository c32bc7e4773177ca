package tollgate;

import com.google.protobuf.ByteString;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Properties;
import java.util.zip.CRC32C;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import tollgate.v1.Partials.Checkpoint;
import tollgate.v1.Partials.EndRecord;
import tollgate.v1.Partials.LogPosition;
import tollgate.v1.Partials.LogRange;
import tollgate.v1.Partials.Partial;

/** Writes transactions as an edge does, so that the tests of the harness have something to read; or breaks them. */
final class Produce {
    /** How the last transaction breaks the contract; OPEN: it is never decided; HIDDEN: one that is never decided begins within it. */
    private enum Break {
        NONE,
        SEQ,
        INDEX,
        CRC,
        COUNT,
        CLICKS,
        RANGE,
        TOTAL,
        REPEAT,
        PARTITION,
        TORN,
        OPEN,
        HIDDEN,
        CHECKPOINT,
        TYPE,
        HEADER,
        KEY,
        VERSION
    }

    private static final long PANE_MS = 10_000;
    private static final long START_MS = 1_700_000_000_000L;

    private final KafkaProducer<byte[], byte[]> producer;
    private final Properties properties;
    private final Options options;
    private final String edge;
    private final int partition;
    private final int partialsEach;
    private final int clicksEach;
    private final int ads;
    private final int perPane;
    private final ByteString log;
    private final Break breaking;

    private Produce(KafkaProducer<byte[], byte[]> producer, Properties properties, Options options) {
        this.producer = producer;
        this.properties = properties;
        this.options = options;
        edge = options.text("edge");
        partition = options.number("partition", 0);
        partialsEach = options.number("partials", 10);
        clicksEach = options.number("clicks", 3);
        ads = options.number("ads", 100);
        perPane = options.number("per-pane", 1);
        log = ByteString.copyFromUtf8(String.format("%16.16s", edge));
        breaking = Break.valueOf(options.text("break", "none").toUpperCase());
    }

    static Map<String, Object> run(Options options) throws IOException {
        Properties properties = options.client();
        // Of these topics only: edges of one name in two tests must not fence each other.
        properties.putIfAbsent("transactional.id", options.text("topic") + "-" + options.text("edge"));
        properties.putIfAbsent("client.id", options.text("edge"));
        // A machine that stands still for a while costs a test time, and not a transaction.
        properties.putIfAbsent("transaction.timeout.ms", "120000");
        properties.putIfAbsent("max.block.ms", "60000");
        // A commit whose answer was lost is asked for again soon.
        properties.putIfAbsent("retry.backoff.ms", "20");
        properties.putIfAbsent("reconnect.backoff.ms", "20");
        var bytes = new ByteArraySerializer();
        var producer = new KafkaProducer<>(properties, bytes, bytes);
        try {
            producer.initTransactions();
            return new Produce(producer, properties, options).all();
        } finally {
            // At once: it would abort what is open.
            producer.close(Duration.ZERO);
        }
    }

    private Map<String, Object> all() {
        int transactions = options.number("transactions", 1);
        int abortEvery = options.number("abort-every", 0);
        long seq = options.number("after", 0);
        long committed = 0;
        for (int at = 1; at <= transactions; at++) {
            long begun = System.nanoTime();
            try {
                if (transact(seq + 1, at == transactions, abortEvery > 0 && at % abortEvery == 0)) {
                    committed++;
                    seq++;
                }
            } catch (KafkaException error) {
                // A broker gives up what takes too long.
                long took = Duration.ofNanos(System.nanoTime() - begun).toMillis();
                throw new KafkaException("transaction " + at + " of " + transactions + ", " + took + " ms after it began", error);
            }
        }
        Map<String, Object> answer = new LinkedHashMap<>();
        answer.put("transactions", transactions);
        answer.put("committed", committed);
        answer.put("last_seq", seq);
        answer.put("clicks", committed * partialsEach * clicksEach);
        return answer;
    }

    /** Whether it was committed. */
    private boolean transact(long seq, boolean last, boolean aborted) {
        producer.beginTransaction();
        send(seq, last ? breaking : Break.NONE);
        if (last && breaking == Break.OPEN) {
            producer.flush();
            return false;
        }
        if (aborted) {
            // What was not sent yet would not be in the log, and nobody could see that it was aborted.
            producer.flush();
            producer.abortTransaction();
            return false;
        }
        producer.commitTransaction();
        return true;
    }

    private void send(long seq, Break how) {
        long named = how == Break.SEQ ? seq + 1 : seq;
        long before = (seq - 1) * partialsEach * clicksEach;
        long clicks = (long) partialsEach * clicksEach;
        long watermarkMs = START_MS + seq * 1000;
        CRC32C crc = new CRC32C();
        for (int index = 0; index < partialsEach; index++) {
            int shift = how == Break.INDEX && index == partialsEach - 1 ? 1 : 0;
            byte[] value = partial(named, index + shift, watermarkMs, how).toByteArray();
            crc.update(value);
            sendPartial("partial", value, how);
            if (how == Break.HIDDEN && index == 0) {
                beginAnother(value);
            }
            if (how == Break.REPEAT && index == 0) {
                sendPartial("partial", value, how);
            }
        }
        if (how != Break.TORN) {
            LogRange range = LogRange.newBuilder()
                    .setLogUuid(log)
                    .setFromLsn(before + (how == Break.RANGE ? 1 : 0))
                    .setToLsn(before + clicks)
                    .setClicks(clicks + (how == Break.CLICKS ? 1 : 0))
                    .setClicksTotal(before + clicks + (how == Break.TOTAL || how == Break.CLICKS ? 1 : 0))
                    .build();
            EndRecord end = EndRecord.newBuilder()
                    .setFormatVersion(1)
                    .setEdgeId(edge)
                    .setTxnSeq(named)
                    .setPartials(partialsEach + (how == Break.COUNT ? 1 : 0))
                    .setCrc((int) crc.getValue() ^ (how == Break.CRC ? 1 : 0))
                    .addRanges(range)
                    .setWatermarkMs(watermarkMs)
                    .setHorizonMs(START_MS)
                    .build();
            send(options.text("topic"), partition, how == Break.TYPE ? "close" : "end", end.toByteArray(), how);
        }
        LogPosition position = LogPosition.newBuilder()
                .setLogUuid(log)
                .setLsn(before + clicks)
                .setChain(seq)
                .setClicksTotal(before + clicks)
                .build();
        Checkpoint checkpoint = Checkpoint.newBuilder()
                .setFormatVersion(1)
                .setEdgeId(edge)
                .setTxnSeq(how == Break.CHECKPOINT ? named + 1 : named)
                .addLogs(position)
                .build();
        send(options.text("checkpoints"), 0, "checkpoint", checkpoint.toByteArray(), Break.NONE);
    }

    /** What is sent from here on is behind it in the log, and hidden as long as it is undecided. */
    private void beginAnother(byte[] value) {
        producer.flush();
        Properties ofAnother = new Properties();
        ofAnother.putAll(properties);
        ofAnother.put("transactional.id", properties.get("transactional.id") + "-another");
        var bytes = new ByteArraySerializer();
        var another = new KafkaProducer<>(ofAnother, bytes, bytes);
        another.initTransactions();
        another.beginTransaction();
        another.send(new ProducerRecord<>(options.text("topic"), partition, new byte[0], value));
        another.flush();
        another.close(Duration.ZERO);
    }

    private Partial partial(long seq, int index, long watermarkMs, Break how) {
        return Partial.newBuilder()
                .setFormatVersion(how == Break.VERSION ? 2 : 1)
                .setEdgeId(edge)
                .setLogUuid(log)
                .setTxnSeq(seq)
                .setIndex(index)
                .setPaneStartMs((START_MS / PANE_MS + seq / perPane) * PANE_MS)
                .setAdId("ad-" + index % ads)
                .setRegion("DE")
                .setDevice(index % 7)
                .setAgent(index % 10)
                .setClass_(index % 3)
                .setClicks(clicksEach)
                .setWatermarkMs(watermarkMs)
                .build();
    }

    private void sendPartial(String type, byte[] value, Break how) {
        send(options.text("topic"), how == Break.PARTITION ? partition + 1 : partition, type, value, how);
    }

    private void send(String topic, int to, String type, byte[] value, Break how) {
        byte[] key = (how == Break.KEY ? edge + "-other" : edge).getBytes(StandardCharsets.UTF_8);
        var record = new ProducerRecord<>(topic, to, key, value);
        record.headers().add("type", type.getBytes(StandardCharsets.UTF_8));
        if (how == Break.HEADER) {
            record.headers().add("colour", new byte[] {1});
        }
        producer.send(record);
    }
}
