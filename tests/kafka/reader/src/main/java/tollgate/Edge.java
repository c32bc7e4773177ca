package tollgate;

import com.google.protobuf.ByteString;
import java.util.BitSet;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.zip.CRC32C;
import tollgate.v1.Partials.Checkpoint;
import tollgate.v1.Partials.EndRecord;
import tollgate.v1.Partials.LogPosition;
import tollgate.v1.Partials.LogRange;
import tollgate.v1.Partials.Partial;

/** What one edge sent, in its order, against what it must send. */
final class Edge {
    private static final int FORMAT_VERSION = 1;

    /** Up to where a log was exported. */
    private record Position(long lsn, long clicksTotal) {}

    private final String id;
    private final Problems problems;
    private final TreeSet<Integer> partitions = new TreeSet<>();
    private final TreeSet<Integer> checkpointPartitions = new TreeSet<>();
    /** Indexes seen of each transaction. */
    private final Map<Long, BitSet> seen = new HashMap<>();
    private final Map<ByteString, Position> logs = new TreeMap<>(ByteString.unsignedLexicographicalComparator());
    private EndRecord lastEnd = EndRecord.getDefaultInstance();
    private Checkpoint lastCheckpoint;
    private long clicks;
    private long watermarkMs;

    // The transaction whose end record has not come yet.
    private long openPartials;
    private final CRC32C openCrc = new CRC32C();
    private final Map<ByteString, Long> openClicks = new HashMap<>();
    private long openWatermarkMs;

    Edge(String id, Problems problems) {
        this.id = id;
        this.problems = problems;
    }

    private void problem(String text) {
        problems.add("edge " + id + ": " + text);
    }

    void in(int partition) {
        if (partitions.add(partition) && partitions.size() > 1) {
            problem("partition: its records lie in partitions " + partitions);
        }
    }

    void partial(Partial partial, byte[] value) {
        String name = "partial " + partial.getTxnSeq() + "/" + partial.getIndex();
        version(name, partial.getFormatVersion());
        BitSet indexes = seen.computeIfAbsent(partial.getTxnSeq(), seq -> new BitSet());
        if (indexes.get(partial.getIndex())) {
            problem("repeated: " + name + " of log " + hex(partial.getLogUuid()));
        }
        indexes.set(partial.getIndex());
        if (partial.getTxnSeq() != lastEnd.getTxnSeq() + 1) {
            problem("seq: " + name + " after the end record of " + lastEnd.getTxnSeq());
        }
        if (partial.getIndex() != openPartials) {
            problem("index: " + name + ", expected index " + openPartials);
        }
        if (openPartials > 0 && partial.getWatermarkMs() != openWatermarkMs) {
            problem("watermark: " + name + " says " + partial.getWatermarkMs() + ", the one before " + openWatermarkMs);
        }
        openPartials++;
        openCrc.update(value);
        openWatermarkMs = partial.getWatermarkMs();
        openClicks.merge(partial.getLogUuid(), partial.getClicks(), Long::sum);
        clicks += partial.getClicks();
    }

    void end(EndRecord end) {
        String name = "end record " + end.getTxnSeq();
        version(name, end.getFormatVersion());
        if (end.getTxnSeq() != lastEnd.getTxnSeq() + 1) {
            problem("seq: " + name + " after " + lastEnd.getTxnSeq());
        }
        if (Integer.toUnsignedLong(end.getPartials()) != openPartials) {
            problem("count: " + name + " says " + end.getPartials() + " partials, there are " + openPartials);
        }
        if (end.getCrc() != (int) openCrc.getValue()) {
            problem(String.format("crc: %s says %08x, it is %08x", name, end.getCrc(), openCrc.getValue()));
        }
        if (openPartials > 0 && end.getWatermarkMs() != openWatermarkMs) {
            problem("watermark: " + name + " says " + end.getWatermarkMs() + ", its partials " + openWatermarkMs);
        }
        // A log may have several ranges in a transaction; its partials are of all of them.
        Map<ByteString, Long> rangeClicks = new LinkedHashMap<>();
        for (LogRange range : end.getRangesList()) {
            range(name, range);
            rangeClicks.merge(range.getLogUuid(), range.getClicks(), Long::sum);
        }
        rangeClicks.forEach((log, says) -> {
            Long sum = openClicks.remove(log);
            if (says != (sum == null ? 0 : sum)) {
                String is = "says " + says + ", its partials " + (sum == null ? 0 : sum);
                problem("clicks: " + name + ", log " + hex(log) + " " + is);
            }
        });
        openClicks.forEach((log, sum) -> problem("clicks: " + name + " has no range of log " + hex(log)));
        lastEnd = end;
        watermarkMs = Math.max(watermarkMs, end.getWatermarkMs());
        openPartials = 0;
        openCrc.reset();
        openClicks.clear();
    }

    private void range(String name, LogRange range) {
        String log = name + ", log " + hex(range.getLogUuid());
        Position before = logs.getOrDefault(range.getLogUuid(), new Position(0, 0));
        if (range.getFromLsn() != before.lsn || range.getToLsn() < range.getFromLsn()) {
            String is = range.getFromLsn() + ".." + range.getToLsn();
            problem("range: " + log + " has " + is + " after " + before.lsn);
        }
        long total = before.clicksTotal + range.getClicks();
        if (range.getClicksTotal() != total) {
            problem("total: " + log + " says " + range.getClicksTotal() + " clicks, it is " + total);
        }
        logs.put(range.getLogUuid(), new Position(range.getToLsn(), range.getClicksTotal()));
    }

    /** After all its end records were read. */
    void checkpoint(Checkpoint checkpoint, int partition) {
        String name = "checkpoint " + checkpoint.getTxnSeq();
        version(name, checkpoint.getFormatVersion());
        if (checkpointPartitions.add(partition) && checkpointPartitions.size() > 1) {
            problem("partition: its checkpoints lie in partitions " + checkpointPartitions);
        }
        if (lastCheckpoint != null && checkpoint.getTxnSeq() <= lastCheckpoint.getTxnSeq()) {
            problem("checkpoint: " + name + " after " + lastCheckpoint.getTxnSeq());
        }
        if (checkpoint.getTxnSeq() > lastEnd.getTxnSeq()) {
            problem("checkpoint: " + name + ", the last end record is " + lastEnd.getTxnSeq());
        }
        lastCheckpoint = checkpoint;
    }

    private void version(String name, int version) {
        if (version != FORMAT_VERSION) {
            problem("version: " + name + " has format_version " + version + ", expected " + FORMAT_VERSION);
        }
    }

    /** What shows only when nothing more comes. */
    void finish() {
        if (openPartials > 0) {
            problem("torn: " + openPartials + " partials after the end record of " + lastEnd.getTxnSeq());
        }
        if (lastCheckpoint == null) {
            problem("checkpoint: there is none");
            return;
        }
        if (lastCheckpoint.getTxnSeq() != lastEnd.getTxnSeq()) {
            String last = "the last is " + lastCheckpoint.getTxnSeq();
            problem("checkpoint: " + last + ", the last end record " + lastEnd.getTxnSeq());
            return;
        }
        // A log that was deleted is in no checkpoint; one that nothing came from yet is in no end record.
        for (LogPosition log : lastCheckpoint.getLogsList()) {
            Position exported = logs.getOrDefault(log.getLogUuid(), new Position(0, 0));
            if (log.getLsn() != exported.lsn || log.getClicksTotal() != exported.clicksTotal) {
                String is = "LSN " + log.getLsn() + " and " + log.getClicksTotal() + " clicks";
                problem("checkpoint: log " + hex(log.getLogUuid()) + " at " + is + ", its ranges: " + exported);
            }
        }
    }

    Map<String, Object> answer() {
        Map<String, Object> answer = new LinkedHashMap<>();
        answer.put("partitions", partitions);
        answer.put("last_seq", lastEnd.getTxnSeq());
        answer.put("clicks", clicks);
        answer.put("watermark_ms", lastEnd.getWatermarkMs());
        answer.put("watermark_highest_ms", watermarkMs);
        answer.put("horizon_ms", lastEnd.getHorizonMs());
        answer.put("stopped", lastEnd.getStopped());
        return answer;
    }

    Optional<Map<String, Object>> lastCheckpoint() {
        return Optional.ofNullable(lastCheckpoint).map(checkpoint -> {
            Map<String, Object> logs = new TreeMap<>();
            for (LogPosition log : checkpoint.getLogsList()) {
                Map<String, Object> position = new LinkedHashMap<>();
                position.put("lsn", log.getLsn());
                position.put("chain", Long.toUnsignedString(log.getChain()));
                position.put("clicks_total", log.getClicksTotal());
                logs.put(hex(log.getLogUuid()), position);
            }
            Map<String, Object> answer = new LinkedHashMap<>();
            answer.put("txn_seq", checkpoint.getTxnSeq());
            answer.put("logs", logs);
            answer.put("nonce", hex(checkpoint.getNonce()));
            answer.put("data_dir_uuid", hex(checkpoint.getDataDirUuid()));
            return answer;
        });
    }

    private static String hex(ByteString bytes) {
        return HexFormat.of().formatHex(bytes.toByteArray());
    }
}
