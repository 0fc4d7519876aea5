package dev.externalip.hotrod;

import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.TimeUnit;

import org.infinispan.client.hotrod.TransportFactory;

import io.netty.channel.EventLoopGroup;
import io.netty.channel.socket.DatagramChannel;
import io.netty.channel.socket.SocketChannel;

/**
 * Connects a Hot Rod client outside the cluster's network to each member directly: the address a member has inside is
 * replaced by its external one, as the map says at the moment of the connection.
 *
 * <p>One property does it:
 * {@code infinispan.client.hotrod.transport_factory=dev.externalip.hotrod.ExternalIpTransportFactory}; where the map is,
 * {@link Settings#fromEnvironment()} tells. An address the map does not know is refused at once.
 */
public final class ExternalIpTransportFactory implements TransportFactory, AutoCloseable {
    private final Settings settings;
    private final List<EventLoopGroup> groups = new CopyOnWriteArrayList<>();
    private AddressMap map;

    /** Takes its settings from system properties and the environment; made by the client for the property. */
    public ExternalIpTransportFactory() {
        this(Settings.fromEnvironment());
    }

    /** For {@code ConfigurationBuilder.transportFactory}. */
    public ExternalIpTransportFactory(Settings settings) {
        this.settings = settings;
    }

    @Override
    public Class<? extends SocketChannel> socketChannelClass() {
        return DEFAULT.socketChannelClass();
    }

    @Override
    public Class<? extends DatagramChannel> datagramChannelClass() {
        return DEFAULT.datagramChannelClass();
    }

    /** Called when a cache manager starts; waits a few seconds at most for the first map. */
    @Override
    public EventLoopGroup createEventLoopGroup(int maxExecutors, ExecutorService executorService) {
        AddressMap followed = map();
        EventLoopGroup group = DEFAULT.createEventLoopGroup(maxExecutors, executorService);
        groups.add(group);
        return MappedGroup.of(group, followed);
    }

    /** The map that is followed, from the first call on. */
    public synchronized AddressMap map() {
        if (map == null) {
            map = AddressMap.open(settings);
        }
        return map;
    }

    /**
     * Stops following the map and the threads of its connections, which cache managers leave to the factory's owner.
     * To be called after {@code RemoteCacheManager.stop()}, by applications that go on without it.
     */
    @Override
    public synchronized void close() {
        groups.forEach(group -> group.shutdownGracefully(0, 0, TimeUnit.MILLISECONDS));
        groups.clear();
        if (map != null) {
            map.close();
            map = null;
        }
    }
}
