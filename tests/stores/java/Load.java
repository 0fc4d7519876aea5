import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;
import java.util.stream.Stream;

import org.infinispan.client.hotrod.RemoteCache;
import org.infinispan.client.hotrod.RemoteCacheManager;
import org.infinispan.client.hotrod.configuration.Configuration;
import org.infinispan.client.hotrod.configuration.ConfigurationBuilder;

/**
 * A client of an Infinispan cluster outside of it: writes and reads in a loop until its input ends. It knows nothing of
 * the map: hotrod properties are its only argument, one of them names the transport factory.
 *
 * <p>Each line of input is answered by a line of JSON: what was done since the one before. {@code report} asks for no more,
 * {@code rest} halts the loop and {@code go} goes on with it, {@code keys NUMBER...} has these keys written and read once each. {@code servers} is
 * answered by the members as the cluster has told them.
 * The first line of output is {@code {"ready": true}}, or what failed.
 *
 * <p>What fails is tried once more, as a whole: {@code after_ms} is how long that took. The first time, {@code first_ms}, also
 * loads the client's classes, which takes as long as the machine is slow.
 */
public final class Load {
    private static final int KEYS = 1000;

    private final RemoteCache<String, String> cache;
    private final List<String> failed = new ArrayList<>();
    private long number;
    private long operations;
    private long wrong;
    private long slowest;
    private volatile boolean stopped;
    private Thread worker;

    private Load(RemoteCache<String, String> cache) {
        this.cache = cache;
    }

    public static void main(String[] arguments) throws Exception {
        Properties properties = new Properties();
        for (String argument : arguments) {
            String[] pair = argument.split("=", 2);
            properties.setProperty("infinispan.client.hotrod." + pair[0], pair[1]);
        }
        Failure first = run(properties);
        if (first != null) {
            Failure again = run(properties);
            System.out.printf("{\"first\": %s, \"first_ms\": %d, \"error\": %s, \"after_ms\": %d}%n", quoted(first.told()),
                first.millis(), quoted(again.told()), again.millis());
        }
        System.exit(0); // the transport's threads are its owner's to stop, and this is the end
    }

    private record Failure(String told, long millis) {
    }

    /** Serves until the input ends, where it can begin. */
    private static Failure run(Properties properties) throws Exception {
        long begun = System.nanoTime();
        Configuration configuration = new ConfigurationBuilder().withProperties(properties).build();
        try (RemoteCacheManager manager = new RemoteCacheManager(configuration, false)) {
            manager.start();
            RemoteCache<String, String> cache = manager.getCache("data");
            for (int key = 0; key < KEYS; key++) {
                cache.put("key-" + key, "0");
            }
            new Load(cache).serve();
            return null;
        } catch (RuntimeException e) {
            return new Failure(whole(e), millis(System.nanoTime() - begun));
        }
    }

    private void serve() throws Exception {
        System.out.println("{\"ready\": true}");
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        go();
        for (String read = in.readLine(); read != null; read = in.readLine()) {
            String[] words = read.split(" ");
            switch (words[0]) {
                case "go" -> go();
                case "rest" -> rest();
                case "keys" -> Stream.of(words).skip(1).forEach(key -> putAndGet("key-" + key, "alone"));
                default -> { }
            }
            System.out.println(words[0].equals("servers") ? servers() : report());
        }
        rest();
    }

    private String servers() {
        Stream<String> servers = cache.getCacheTopologyInfo().getSegmentsPerServer().keySet().stream().map(Object::toString);
        return servers.sorted().map(Load::quoted).collect(Collectors.joining(", ", "{\"servers\": [", "]}"));
    }

    private void go() {
        stopped = false;
        worker = new Thread(this::work);
        worker.start();
    }

    private void rest() throws InterruptedException {
        stopped = true;
        worker.join();
    }

    private void work() {
        while (!stopped) {
            number++;
            putAndGet("key-" + number % KEYS, Long.toString(number));
        }
    }

    private void putAndGet(String key, String value) {
        timed(() -> cache.put(key, value));
        String found = timed(() -> cache.get(key));
        if (found != null && !found.equals(value)) {
            synchronized (this) {
                wrong++;
            }
        }
    }

    private String timed(Callable<String> operation) {
        long begun = System.nanoTime();
        String answer = null;
        String failure = null;
        try {
            answer = operation.call();
        } catch (Exception e) {
            failure = whole(e);
        }
        synchronized (this) {
            operations++;
            slowest = Math.max(slowest, System.nanoTime() - begun);
            if (failure != null) {
                failed.add(failure);
            }
        }
        return answer;
    }

    private synchronized String report() {
        String failures = failed.stream().limit(5).map(Load::quoted).collect(Collectors.joining(", "));
        String line = String.format("{\"operations\": %d, \"failed\": [%s], \"wrong\": %d, \"slowest_ms\": %d}", operations,
            failures, wrong, millis(slowest));
        operations = 0;
        wrong = 0;
        slowest = 0;
        failed.clear();
        return line;
    }

    /** With the causes, of which the last one is the reason. */
    private static String whole(Throwable e) {
        StringBuilder text = new StringBuilder(e.toString());
        for (Throwable cause = e.getCause(); cause != null; cause = cause.getCause()) {
            text.append(": ").append(cause.getMessage());
        }
        for (Throwable other : e.getSuppressed()) {
            text.append("; ").append(other.getMessage());
        }
        return text.toString();
    }

    private static String quoted(String text) {
        return "\"" + text.replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", " ").replace("\r", "").replace("\t", " ") + "\"";
    }

    private static long millis(long nanos) {
        return nanos / 1_000_000;
    }
}
