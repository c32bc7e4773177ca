package tollgate;

import java.io.IOException;
import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;

/**
 * A broker in this process. It lives no longer than who started it: when standard input ends, however that came, it
 * ends at once, and takes along the directory that it was told to remove.
 */
final class Broker {
    private Broker() {}

    static Map<String, Object> run(Options options) {
        Thread watch = new Thread(() -> endWithInput(options), "starter-watch");
        watch.setDaemon(true);
        watch.start();
        String properties = options.text("properties");
        if (options.has("format")) {
            format(properties, options);
        }
        kafka.Kafka.main(new String[] {properties});
        return Map.of("ended", true);
    }

    static void format(String properties, Options options) {
        List<String> words = new ArrayList<>(List.of("format", "-t", options.text("format"), "-c", properties));
        for (String user : options.all("scram")) {
            words.addAll(List.of("--add-scram", user));
        }
        int code = kafka.tools.StorageTool.execute(words.toArray(String[]::new), new PrintStream(System.err, true));
        if (code != 0) {
            System.err.println("the directory could not be formatted: code " + code);
            Runtime.getRuntime().halt(code);
        }
    }

    private static void endWithInput(Options options) {
        try {
            while (System.in.read() >= 0) {}
        } catch (IOException error) {
            // As its end.
        }
        if (options.has("remove")) {
            remove(Path.of(options.text("remove")));
        }
        Runtime.getRuntime().halt(137);
    }

    /** The broker still writes: what it makes anew is removed in another round. */
    private static void remove(Path directory) {
        for (int round = 0; round < 5 && Files.exists(directory); round++) {
            try (Stream<Path> files = Files.walk(directory)) {
                for (Path file : files.sorted(Comparator.reverseOrder()).toList()) {
                    Files.deleteIfExists(file);
                }
            } catch (IOException | java.io.UncheckedIOException error) {
                // The next round sees what is left.
            }
        }
    }
}
