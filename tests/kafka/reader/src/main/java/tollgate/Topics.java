package tollgate;

import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.config.ConfigResource;

/** Creates, changes, deletes and describes topics. */
final class Topics {
    private Topics() {}

    static Map<String, Object> run(Options options) throws Exception {
        Properties properties = options.client();
        properties.putIfAbsent("default.api.timeout.ms", "20000");
        properties.putIfAbsent("request.timeout.ms", "20000");
        try (Admin admin = Admin.create(properties)) {
            if (options.has("create")) {
                return create(admin, options);
            }
            if (options.has("delete")) {
                String name = options.text("delete");
                admin.deleteTopics(List.of(name)).all().get();
                await(admin, name, 0);
                return Map.of("deleted", name);
            }
            if (options.has("empty")) {
                return empty(admin, options.text("empty"));
            }
            if (options.has("alter")) {
                return alter(admin, options);
            }
            if (options.has("coordinator-of")) {
                return coordinator(admin, options.text("coordinator-of"));
            }
            return describe(admin, options.text("describe"));
        } catch (ExecutionException error) {
            throw error.getCause() instanceof Exception cause ? cause : error;
        }
    }

    /** Which broker it is, by its id. */
    private static Map<String, Object> coordinator(Admin admin, String transactionalId) throws Exception {
        var found = admin.describeTransactions(List.of(transactionalId)).description(transactionalId).get();
        return Map.of("coordinator", found.coordinatorId());
    }

    /** With as many replicas as the broker gives a topic. */
    private static Map<String, Object> create(Admin admin, Options options) throws Exception {
        String name = options.text("create");
        int partitions = options.number("partitions", 1);
        NewTopic topic = new NewTopic(name, Optional.of(partitions), Optional.empty()).configs(options.pairs("config"));
        admin.createTopics(List.of(topic)).all().get();
        await(admin, name, partitions);
        return Map.of("created", name, "partitions", partitions);
    }

    private static Map<String, Object> alter(Admin admin, Options options) throws Exception {
        String name = options.text("alter");
        if (options.has("partitions")) {
            int partitions = options.number("partitions", 1);
            admin.createPartitions(Map.of(name, NewPartitions.increaseTo(partitions))).all().get();
            await(admin, name, partitions);
            return Map.of("altered", name, "partitions", partitions);
        }
        var changes = options.pairs("config").entrySet().stream()
                .map(pair -> new ConfigEntry(pair.getKey(), pair.getValue()))
                .map(entry -> new AlterConfigOp(entry, AlterConfigOp.OpType.SET))
                .toList();
        var topic = new ConfigResource(ConfigResource.Type.TOPIC, name);
        admin.incrementalAlterConfigs(Map.of(topic, changes)).all().get();
        return Map.of("altered", name);
    }

    /** Deletes every record, as a retention does in time. */
    private static Map<String, Object> empty(Admin admin, String name) throws Exception {
        Map<TopicPartition, RecordsToDelete> all = new HashMap<>();
        for (int partition = 0; partition < partitions(admin, name); partition++) {
            all.put(new TopicPartition(name, partition), RecordsToDelete.beforeOffset(-1));
        }
        admin.deleteRecords(all).all().get();
        return Map.of("emptied", name);
    }

    /** The broker hears of what the controller did a little later. */
    private static void await(Admin admin, String name, int partitions) throws Exception {
        while (partitions(admin, name) != partitions) {
            Thread.sleep(5);
        }
    }

    /** Partitions that have a leader; none where there is no such topic. */
    private static int partitions(Admin admin, String name) throws Exception {
        return (int) found(admin, name).stream().filter(p -> p.leader() != null).count();
    }

    private static List<TopicPartitionInfo> found(Admin admin, String name) throws Exception {
        try {
            return admin.describeTopics(List.of(name)).allTopicNames().get().get(name).partitions();
        } catch (ExecutionException error) {
            if (error.getCause() instanceof org.apache.kafka.common.errors.UnknownTopicOrPartitionException) {
                return List.of();
            }
            throw error;
        }
    }

    private static Map<String, Object> describe(Admin admin, String name) throws Exception {
        Map<String, Object> answer = new TreeMap<>();
        List<TopicPartitionInfo> found = found(admin, name);
        int partitions = partitions(admin, name);
        answer.put("topic", name);
        answer.put("partitions", partitions);
        answer.put("leaders", found.stream().map(p -> p.leader() == null ? -1 : p.leader().id()).toList());
        answer.put("in_sync", found.stream().map(p -> p.isr().size()).toList());
        Map<String, String> config = new TreeMap<>();
        if (partitions > 0) {
            var resource = new ConfigResource(ConfigResource.Type.TOPIC, name);
            for (ConfigEntry entry : admin.describeConfigs(List.of(resource)).all().get().get(resource).entries()) {
                config.put(entry.name(), entry.value());
            }
        }
        answer.put("config", config);
        return answer;
    }
}
