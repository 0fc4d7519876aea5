import java.util.Map;
import java.util.function.Function;

import redis.clients.jedis.DefaultJedisClientConfig;
import redis.clients.jedis.HostAndPort;
import redis.clients.jedis.Jedis;
import redis.clients.jedis.JedisClientConfig;
import redis.clients.jedis.exceptions.JedisMovedDataException;

/**
 * Jedis with one address for all members, and one connection. A redirection names an address that leads nowhere from here, so it
 * is followed through the one that does: connect again until the load balancer happens to choose the owner.
 */
final class RedisOneAddress implements Bench.Store {
    private final HostAndPort at;
    private final JedisClientConfig config;
    private Jedis connection;
    private long asked;

    RedisOneAddress(Map<String, String> settings) {
        at = HostAndPort.from(settings.get("at"));
        config = DefaultJedisClientConfig.builder().password(settings.get("password")).build();
        connection = new Jedis(at, config);
    }

    @Override
    public void put(String key, String value) {
        ask(redis -> redis.set(key, value));
    }

    @Override
    public String get(String key) {
        return ask(redis -> redis.get(key));
    }

    private String ask(Function<Jedis, String> operation) {
        while (true) {
            asked++;
            try {
                return operation.apply(connection);
            } catch (JedisMovedDataException e) {
                connection.close();
                connection = new Jedis(at, config);
            }
        }
    }

    @Override
    public long asked() {
        return asked;
    }

    @Override
    public void close() {
        connection.close();
    }
}
