package tollgate;

import java.io.IOException;
import java.io.Reader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;

/** The flags of a subcommand: pairs of a name that begins with two dashes and its value. */
final class Options {
    /** A command line that cannot be understood. */
    static final class Wrong extends RuntimeException {
        private static final long serialVersionUID = 1;

        Wrong(String message) {
            super(message);
        }
    }

    private final Map<String, List<String>> values = new LinkedHashMap<>();

    Options(List<String> words) {
        for (int at = 0; at < words.size(); at += 2) {
            String name = words.get(at);
            if (!name.startsWith("--") || at + 1 == words.size()) {
                throw new Wrong(name + ": expected --NAME VALUE");
            }
            values.computeIfAbsent(name.substring(2), key -> new ArrayList<>()).add(words.get(at + 1));
        }
    }

    /** These, and more of them. */
    Options with(List<String> words) {
        Options more = new Options(words);
        values.forEach(more.values::putIfAbsent);
        return more;
    }

    boolean has(String name) {
        return values.containsKey(name);
    }

    List<String> all(String name) {
        return values.getOrDefault(name, List.of());
    }

    String text(String name) {
        if (!has(name)) {
            throw new Wrong("--" + name + " is missing");
        }
        return all(name).get(0);
    }

    String text(String name, String otherwise) {
        return has(name) ? text(name) : otherwise;
    }

    int number(String name, int otherwise) {
        return has(name) ? Integer.parseInt(text(name)) : otherwise;
    }

    /** The pairs `K=V` of a flag that may be given more than once. */
    Map<String, String> pairs(String name) {
        Map<String, String> pairs = new LinkedHashMap<>();
        for (String pair : all(name)) {
            int at = pair.indexOf('=');
            if (at < 1) {
                throw new Wrong("--" + name + " " + pair + ": expected K=V");
            }
            pairs.put(pair.substring(0, at), pair.substring(at + 1));
        }
        return pairs;
    }

    /** What every client is told: where the broker is, and the file and pairs of --properties and --set. */
    Properties client() throws IOException {
        Properties properties = new Properties();
        if (has("properties")) {
            try (Reader file = Files.newBufferedReader(Path.of(text("properties")))) {
                properties.load(file);
            }
        }
        properties.putAll(pairs("set"));
        properties.put("bootstrap.servers", text("bootstrap"));
        return properties;
    }
}
