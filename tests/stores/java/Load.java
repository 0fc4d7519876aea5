import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;

import org.infinispan.client.hotrod.RemoteCache;
import org.infinispan.client.hotrod.RemoteCacheManager;
import org.infinispan.client.hotrod.configuration.ConfigurationBuilder;

/**
 * A client of an Infinispan cluster outside of it: writes and reads in a loop until its input ends. It knows nothing of
 * the map: hotrod properties are its only argument, one of them names the transport factory.
 *
 * <p>Each line of input is answered by a line of JSON: what was done since the one before. The first line of output is
 * {@code {"ready": true}}, or what failed and how long after it began to connect.
 */
public final class Load {
    private static final int KEYS = 1000;

    private final RemoteCache<String, String> cache;
    private final List<String> failed = new ArrayList<>();
    private long operations;
    private long wrong;
    private long slowest;
    private volatile boolean stopped;

    private Load(RemoteCache<String, String> cache) {
        this.cache = cache;
    }

    public static void main(String[] arguments) throws Exception {
        Properties properties = new Properties();
        for (String argument : arguments) {
            String[] pair = argument.split("=", 2);
            properties.setProperty("infinispan.client.hotrod." + pair[0], pair[1]);
        }
        RemoteCacheManager manager = new RemoteCacheManager(new ConfigurationBuilder().withProperties(properties).build(), false);
        long begun = System.nanoTime();
        try (manager) {
            manager.start();
            RemoteCache<String, String> cache = manager.getCache("data");
            for (int key = 0; key < KEYS; key++) {
                cache.put("key-" + key, "0");
            }
            new Load(cache).serve();
        } catch (RuntimeException e) {
            System.out.printf("{\"error\": %s, \"after_ms\": %d}%n", quoted(whole(e)), millis(System.nanoTime() - begun));
        }
        System.exit(0); // the transport's threads are its owner's to stop, and this is the end
    }

    private void serve() throws Exception {
        Thread worker = new Thread(this::work);
        worker.start();
        System.out.println("{\"ready\": true}");
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        while (in.readLine() != null) {
            System.out.println(report());
        }
        stopped = true;
        worker.join();
    }

    private void work() {
        for (long number = 1; !stopped; number++) {
            String key = "key-" + number % KEYS;
            String value = Long.toString(number);
            timed(() -> cache.put(key, value));
            String found = timed(() -> cache.get(key));
            if (found != null && !found.equals(value)) {
                synchronized (this) {
                    wrong++;
                }
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
