import java.io.UncheckedIOException;
import java.net.ConnectException;
import java.net.InetSocketAddress;
import java.util.Map;
import java.util.Set;

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
