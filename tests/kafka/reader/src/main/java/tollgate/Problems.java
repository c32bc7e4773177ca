package tollgate;

import java.util.ArrayList;
import java.util.List;

/** What breaks the contract; the first few are kept, the others counted. */
final class Problems {
    private static final int KEPT_MAX = 50;

    private final List<String> kept = new ArrayList<>();
    private long more;

    void add(String line) {
        if (kept.size() < KEPT_MAX) {
            kept.add(line);
        } else {
            more++;
        }
    }

    List<String> lines() {
        List<String> lines = new ArrayList<>(kept);
        if (more > 0) {
            lines.add("and " + more + " more");
        }
        return lines;
    }
}
