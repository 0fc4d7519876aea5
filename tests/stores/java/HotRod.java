import java.util.Map;
import java.util.Properties;

import org.infinispan.client.hotrod.RemoteCache;
import org.infinispan.client.hotrod.RemoteCacheManager;
import org.infinispan.client.hotrod.configuration.ConfigurationBuilder;

/** Infinispan's own client, by its own properties. */
final class HotRod implements Bench.Store {
    private final RemoteCacheManager manager;
    private final RemoteCache<String, String> cache;
    private long asked;

    HotRod(Map<String, String> settings) {
        Properties properties = new Properties();
        settings.forEach((name, value) -> properties.setProperty("infinispan.client.hotrod." + name, value));
        manager = new RemoteCacheManager(new ConfigurationBuilder().withProperties(properties).build());
        cache = manager.getCache("data");
    }

    @Override
    public void put(String key, String value) {
        asked++;
        cache.put(key, value);
    }

    @Override
    public String get(String key) {
        asked++;
        return cache.get(key);
    }

    @Override
    public long asked() {
        return asked;
    }

    @Override
    public void close() {
        manager.close();
    }
}
