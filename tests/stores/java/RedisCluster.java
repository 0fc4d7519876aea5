import java.io.UncheckedIOException;
import java.net.ConnectException;
import java.net.InetSocketAddress;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.Stream;

import dev.externalip.hotrod.AddressMap;
import dev.externalip.hotrod.Settings;
import redis.clients.jedis.DefaultJedisClientConfig;
import redis.clients.jedis.HostAndPort;
import redis.clients.jedis.HostAndPortMapper;
import redis.clients.jedis.JedisCluster;

/** Jedis, which goes to the member that has the key; {@code mapped=true}: by the map that the environment names. */
final class RedisCluster implements Bench.Store {
    private final JedisCluster cluster;
    private long asked;

    RedisCluster(Map<String, String> settings) {
        DefaultJedisClientConfig.Builder config = DefaultJedisClientConfig.builder().password(settings.get("password"));
        if ("true".equals(settings.get("mapped"))) {
            config.hostAndPortMapper(byTheMap());
        }
        cluster = new JedisCluster(Set.of(HostAndPort.from(settings.get("at"))), config.build());
    }

    /**
     * Connects twice, and says in a line of JSON what the second attempt failed with and how long it took: the first one
     * also loads the client's classes.
     */
    public static void main(String[] arguments) {
        Map<String, String> settings = new TreeMap<>();
        for (String argument : arguments) {
            String[] pair = argument.split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        long first = failing(settings, new StringBuilder());
        StringBuilder error = new StringBuilder();
        long again = failing(settings, error);
        System.out.printf("{\"first_ms\": %d, \"error\": \"%s\", \"after_ms\": %d}%n", first,
            error.toString().replace("\"", "'"), again);
    }

    /** How long it took in milliseconds. */
    private static long failing(Map<String, String> settings, StringBuilder error) {
        long begun = System.nanoTime();
        try (RedisCluster cluster = new RedisCluster(settings)) {
            error.append("it has connected and found ").append(cluster.get("key"));
        } catch (RuntimeException e) {
            tell(e, error);
        }
        return (System.nanoTime() - begun) / 1_000_000;
    }

    private static void tell(Throwable e, StringBuilder error) {
        error.append(e).append("; ");
        Stream.concat(Stream.ofNullable(e.getCause()), Stream.of(e.getSuppressed())).forEach(reason -> tell(reason, error));
    }

    private static HostAndPortMapper byTheMap() {
        AddressMap map = AddressMap.open(Settings.fromEnvironment());
        return member -> {
            try {
                InetSocketAddress external = map.external(new InetSocketAddress(member.getHost(), member.getPort()));
                return new HostAndPort(external.getHostString(), external.getPort());
            } catch (ConnectException e) {
                throw new UncheckedIOException(e);
            }
        };
    }

    @Override
    public void put(String key, String value) {
        asked++;
        cluster.set(key, value);
    }

    @Override
    public String get(String key) {
        asked++;
        return cluster.get(key);
    }

    @Override
    public long asked() {
        return asked;
    }

    @Override
    public void close() {
        cluster.close();
    }
}
