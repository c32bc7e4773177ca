package tollgate;

import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.LinkedBlockingQueue;

/**
 * The independent consumer: reads what edges wrote to Kafka with Apache's own client, and says whether it keeps the
 * contract of wire/partials.proto. Each subcommand prints one JSON object. `serve` reads subcommands from standard
 * input, one JSON array of words a line, and answers each with a line; it ends at once when its input does.
 */
final class Main {
    private static final String USAGE =
            """
            usage: reader SUBCOMMAND [--NAME VALUE]...
              sum      --bootstrap A --topic T --checkpoints T --isolation read_committed|read_uncommitted
                       [--properties FILE] [--counts FILE]
              produce  --bootstrap A --topic T --checkpoints T --edge ID [--transactions N] [--partials N] [--clicks N]
                       [--ads N] [--per-pane TRANSACTIONS] [--partition N] [--after SEQ] [--abort-every N] [--break KIND]
                       [--properties FILE] [--set K=V]...
              topics   --bootstrap A --create T --partitions N [--config K=V]... | --alter T [--config K=V | --partitions N]...
                       | --delete T | --empty T | --describe T | --coordinator-of TRANSACTIONAL-ID
              rights   --bootstrap A --user U [--password P] [--command "kafka-acls.sh …"]...
                       [--allow "TYPE NAME OPERATION"]... [--deny "TYPE NAME OPERATION"]...
              raw      --bootstrap A --topic T --isolation read_committed|read_uncommitted [--properties FILE]
                       [--counts FILE] [--show AD]
              broker   --properties FILE [--format CLUSTER-ID] [--scram TEXT] [--remove DIRECTORY]
              rehearse --directory D --format CLUSTER-ID
              serve""";

    private static final ObjectMapper JSON = new ObjectMapper();

    private Main() {}

    public static void main(String[] arguments) throws Exception {
        if (arguments.length == 0) {
            System.err.println(USAGE);
            System.exit(64);
        }
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        if (arguments[0].equals("serve")) {
            serve(out);
            return;
        }
        try {
            line(out, run(Arrays.asList(arguments)));
            // Not every thread of a broker that was rehearsed is a daemon.
            System.exit(0);
        } catch (Options.Wrong wrong) {
            System.err.println(wrong.getMessage() + "\n" + USAGE);
            System.exit(64);
        } catch (Exception error) {
            error.printStackTrace();
            System.exit(1);
        }
    }

    private static void serve(PrintStream out) throws Exception {
        var lines = new LinkedBlockingQueue<String>();
        Thread input = new Thread(() -> take(lines), "input");
        input.setDaemon(true);
        input.start();
        while (true) {
            String line = lines.take();
            Map<String, Object> answer;
            try {
                answer = Map.of("ok", run(JSON.readValue(line, new TypeReference<List<String>>() {})));
            } catch (Exception error) {
                answer = Map.of("error", withCauses(error));
            }
            line(out, answer);
        }
    }

    /** Who asked is gone when the input ends: nobody waits for what is under way. */
    private static void take(Queue<String> lines) {
        try (var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
            in.lines().forEach(lines::add);
        } catch (IOException | UncheckedIOException error) {
            // As its end.
        }
        Runtime.getRuntime().halt(0);
    }

    private static String withCauses(Throwable error) {
        StringBuilder text = new StringBuilder(error.toString());
        for (Throwable cause = error.getCause(); cause != null; cause = cause.getCause()) {
            text.append(": ").append(cause);
        }
        return text.toString();
    }

    private static void line(PrintStream out, Map<String, Object> object) throws Exception {
        out.println(JSON.writeValueAsString(object));
        out.flush();
    }

    private static Map<String, Object> run(List<String> words) throws Exception {
        Options options = new Options(words.subList(1, words.size()));
        Map<String, Object> answer =
                switch (words.get(0)) {
                    case "sum" -> Sum.run(options);
                    case "raw" -> Raw.run(options);
                    case "produce" -> Produce.run(options);
                    case "topics" -> Topics.run(options);
                    case "rights" -> Rights.run(options);
                    case "broker" -> Broker.run(options);
                    case "rehearse" -> Rehearsal.run(options);
                    default -> throw new Options.Wrong("there is no subcommand " + words.get(0));
                };
        return answer;
    }
}
