import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.Arrays;
import java.util.Map;
import java.util.TreeMap;

/**
 * One client of a store, and one thread: for each line {@code FROM COUNT} of input it puts so many keys and gets them again, and
 * answers with a line of JSON: how long both took in nanoseconds, the medians, and how many times the store was asked. The first line of output
 * is {@code {"ready": true}}. Any failure ends it.
 */
public final class Bench {
    /** What a store's client is asked for. */
    interface Store extends AutoCloseable {
        void put(String key, String value);

        String get(String key);

        /** How many times the store was asked until now; what the client does by itself is not counted. */
        long asked();

        @Override
        void close();
    }

    private static final String PADDING = "x".repeat(90);

    private Bench() {
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, String> settings = new TreeMap<>();
        for (int n = 1; n < arguments.length; n++) {
            String[] pair = arguments[n].split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        try (Store store = open(arguments[0], settings)) {
            store.put("first", "0");
            System.out.println("{\"ready\": true}");
            BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                String[] words = line.split(" ");
                System.out.println(measured(store, Integer.parseInt(words[0]), Integer.parseInt(words[1])));
            }
        } catch (Exception e) {
            e.printStackTrace();
            System.exit(1);
        }
        System.exit(0); // a transport's threads are its owner's to stop, and this is the end
    }

    private static Store open(String store, Map<String, String> settings) {
        return switch (store) {
            case "hotrod" -> new HotRod(settings);
            case "redis-cluster" -> new RedisCluster(settings);
            case "redis-one-address" -> new RedisOneAddress(settings);
            default -> throw new IllegalArgumentException(store);
        };
    }

    private static String measured(Store store, int from, int count) {
        String[] keys = new String[count];
        String[] values = new String[count];
        for (int n = 0; n < count; n++) {
            keys[n] = "key-" + (from + n);
            values[n] = PADDING + String.format("%010d", System.nanoTime() % 10_000_000_000L);
        }
        long asked = store.asked();
        long[] put = new long[count];
        long[] got = new long[count];
        for (int n = 0; n < count; n++) {
            long begun = System.nanoTime();
            store.put(keys[n], values[n]);
            put[n] = System.nanoTime() - begun;
        }
        for (int n = 0; n < count; n++) {
            long begun = System.nanoTime();
            String found = store.get(keys[n]);
            got[n] = System.nanoTime() - begun;
            if (!values[n].equals(found)) {
                throw new IllegalStateException(keys[n] + " is " + found);
            }
        }
        return String.format("{\"puts_ns\": %d, \"gets_ns\": %d, \"put_median_ns\": %d, \"get_median_ns\": %d, \"asked\": %d}",
            Arrays.stream(put).sum(), Arrays.stream(got).sum(), median(put), median(got), store.asked() - asked);
    }

    private static long median(long[] times) {
        Arrays.sort(times);
        return times[times.length / 2];
    }
}
