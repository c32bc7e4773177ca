package tollgate;

import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/**
 * Loads the classes that a broker and the other subcommands use, by using them once, so that the Java VM can archive
 * them and start from there: a broker is up in half the time.
 */
final class Rehearsal {
    private Rehearsal() {}

    static Map<String, Object> run(Options options) throws Exception {
        Path directory = Files.createDirectories(Path.of(options.text("directory")));
        String direct = "127.0.0.1:" + freePort();
        String controller = "127.0.0.1:" + freePort();
        Path properties = directory.resolve("server.properties");
        List<String> lines = List.of(
                "process.roles=broker,controller",
                "node.id=1",
                "controller.listener.names=CONTROLLER",
                "inter.broker.listener.name=DIRECT",
                "listener.security.protocol.map=DIRECT:PLAINTEXT,CONTROLLER:PLAINTEXT",
                "listeners=DIRECT://" + direct + ",CONTROLLER://" + controller,
                "controller.quorum.voters=1@" + controller,
                "log.dirs=" + directory.resolve("data").toAbsolutePath(),
                "transaction.state.log.replication.factor=1",
                "transaction.state.log.min.isr=1",
                "transaction.state.log.num.partitions=1");
        Files.write(properties, lines);
        Broker.format(properties.toString(), options);
        Thread broker = new Thread(() -> kafka.Kafka.main(new String[] {properties.toString()}), "broker");
        broker.setDaemon(true);
        broker.start();
        List<String> at = List.of("--bootstrap", direct);
        for (String topic : List.of("partials", "checkpoints")) {
            Topics.run(options.with(at).with(List.of("--create", topic)));
        }
        List<String> topics = List.of("--topic", "partials", "--checkpoints", "checkpoints", "--edge", "e");
        Produce.run(options.with(at).with(topics));
        return Sum.run(options.with(at).with(topics).with(List.of("--isolation", "read_committed")));
    }

    private static int freePort() throws Exception {
        try (ServerSocket socket = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            return socket.getLocalPort();
        }
    }
}
