package tollgate;

import java.io.IOException;
import java.io.Writer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.HashMap;
import java.util.Map;
import tollgate.v1.Partials.Partial;

/** Clicks of each key, over all edges and transactions. */
final class Counts {
    private record Key(long paneStartMs, String adId, String region, int device, int agent, int class_) {}

    /** As `LC_ALL=C sort` would not: numbers by value, text by its bytes (ids are ASCII in tests). */
    private static final Comparator<Key> ORDER = Comparator.comparingLong(Key::paneStartMs)
            .thenComparing(Key::adId)
            .thenComparing(Key::region)
            .thenComparingInt(Key::device)
            .thenComparingInt(Key::agent)
            .thenComparingInt(Key::class_);

    private final Map<Key, Long> clicks = new HashMap<>();

    void add(Partial partial) {
        Key key = new Key(
                partial.getPaneStartMs(),
                partial.getAdId(),
                partial.getRegion(),
                partial.getDevice(),
                partial.getAgent(),
                partial.getClass_());
        clicks.merge(key, partial.getClicks(), Long::sum);
    }

    /** One line a key: pane_start_ms, ad_id, region, device, agent, class, clicks. */
    void write(Path path) throws IOException {
        try (Writer file = Files.newBufferedWriter(path, StandardCharsets.UTF_8)) {
            for (Key key : clicks.keySet().stream().sorted(ORDER).toList()) {
                file.write(key.paneStartMs + "\t" + key.adId + "\t" + key.region + "\t" + key.device + "\t" + key.agent
                        + "\t" + key.class_ + "\t" + clicks.get(key) + "\n");
            }
        }
    }
}
