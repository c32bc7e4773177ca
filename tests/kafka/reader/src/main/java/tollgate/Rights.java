package tollgate;

import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeSet;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ScramCredentialInfo;
import org.apache.kafka.clients.admin.ScramMechanism;
import org.apache.kafka.clients.admin.UserScramCredentialUpsertion;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AccessControlEntryFilter;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourcePatternFilter;
import org.apache.kafka.common.resource.ResourceType;
import org.apache.kafka.common.utils.Exit;

/** Makes a user, grants and takes its rights, and says which it has, as the broker sees it: `TYPE NAME OPERATION`. */
final class Rights {
    private Rights() {}

    static Map<String, Object> run(Options options) throws Exception {
        String user = options.text("user");
        Properties properties = options.client();
        properties.putIfAbsent("default.api.timeout.ms", "20000");
        properties.putIfAbsent("request.timeout.ms", "20000");
        try (Admin admin = Admin.create(properties)) {
            if (options.has("password")) {
                create(admin, user, options.text("password"));
            }
            for (String command : options.all("command")) {
                command(command);
            }
            for (String right : options.all("allow")) {
                String[] words = words(right);
                var pattern = new ResourcePattern(ResourceType.fromString(words[0]), words[1], PatternType.LITERAL);
                var entry = new AccessControlEntry(
                        "User:" + user, "*", AclOperation.fromString(words[2]), AclPermissionType.ALLOW);
                admin.createAcls(List.of(new AclBinding(pattern, entry))).all().get();
            }
            for (String right : options.all("deny")) {
                String[] words = words(right);
                var pattern = new ResourcePatternFilter(ResourceType.fromString(words[0]), words[1], PatternType.LITERAL);
                var entry = entries(user, AclOperation.fromString(words[2]));
                admin.deleteAcls(List.of(new AclBindingFilter(pattern, entry))).all().get();
            }
            return Map.of("rights", granted(admin, user));
        }
    }

    private static String[] words(String right) {
        String[] words = right.split(" ");
        if (words.length != 3) {
            throw new Options.Wrong(right + ": expected TYPE NAME OPERATION");
        }
        return words;
    }

    private static AccessControlEntryFilter entries(String user, AclOperation operation) {
        return new AccessControlEntryFilter("User:" + user, null, operation, AclPermissionType.ALLOW);
    }

    private static TreeSet<String> granted(Admin admin, String user) throws Exception {
        var all = new AclBindingFilter(ResourcePatternFilter.ANY, entries(user, AclOperation.ANY));
        var rights = new TreeSet<String>();
        for (AclBinding found : admin.describeAcls(all).values().get()) {
            var pattern = found.pattern();
            rights.add(pattern.resourceType() + " " + pattern.name() + " " + found.entry().operation());
        }
        return rights;
    }

    /** The broker hears of what the controller did a little later. */
    private static void create(Admin admin, String user, String password) throws Exception {
        var how = new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096);
        var upsertion = new UserScramCredentialUpsertion(user, how, password);
        admin.alterUserScramCredentials(List.of(upsertion)).all().get();
        while (!admin.describeUserScramCredentials().all().get().containsKey(user)) {
            Thread.sleep(5);
        }
    }

    /** A line of kafka-acls.sh, done by what that script runs. */
    private static synchronized void command(String line) {
        String[] words = line.split(" ");
        if (!words[0].equals("kafka-acls.sh")) {
            throw new Options.Wrong(line + ": expected kafka-acls.sh");
        }
        var said = new ByteArrayOutputStream();
        PrintStream out = System.out;
        System.setOut(new PrintStream(said, true, StandardCharsets.UTF_8));
        Exit.setExitProcedure((code, message) -> {
            throw new IllegalStateException("kafka-acls.sh ended with " + code);
        });
        try {
            org.apache.kafka.tools.AclCommand.main(java.util.Arrays.copyOfRange(words, 1, words.length));
        } catch (IllegalStateException ended) {
            throw new IllegalStateException(ended.getMessage() + ": " + said.toString(StandardCharsets.UTF_8));
        } finally {
            Exit.resetExitProcedure();
            System.setOut(out);
        }
    }
}
