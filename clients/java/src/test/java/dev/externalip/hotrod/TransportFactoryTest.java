package dev.externalip.hotrod;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.net.ConnectException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.UnknownHostException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Properties;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

import org.infinispan.client.hotrod.configuration.ConfigurationBuilder;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

import io.netty.bootstrap.Bootstrap;
import io.netty.channel.Channel;
import io.netty.channel.ChannelFuture;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.EventLoopGroup;

class TransportFactoryTest {
    @TempDir
    Path directory;

    /** Connects as the client does: its channel class, its group, an address from the server's topology. */
    private static ChannelFuture connect(ExternalIpTransportFactory factory, EventLoopGroup group, String ip, int port)
        throws InterruptedException {
        Bootstrap bootstrap = new Bootstrap().group(group).channel(factory.socketChannelClass());
        bootstrap.handler(new ChannelInitializer<Channel>() {
            @Override
            protected void initChannel(Channel channel) {
                // nothing of its own
            }
        });
        return bootstrap.connect(new InetSocketAddress(ip, port)).await();
    }

    private Path map(String host, int port) throws Exception {
        return Files.writeString(directory.resolve("nat-map.json"), AddressMapTest.oneEntry(host, port));
    }

    @Test
    void connectionsGoToTheExternalAddress() throws Exception {
        ExecutorService threads = Executors.newCachedThreadPool();
        try (ServerSocket member = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
             var factory = new ExternalIpTransportFactory(Settings.file(map("127.0.0.1", member.getLocalPort())))) {
            EventLoopGroup group = factory.createEventLoopGroup(1, threads);
            ChannelFuture connected = connect(factory, group, "198.18.0.5", 11222);
            assertTrue(connected.isSuccess(), () -> "" + connected.cause());
            assertEquals(member.getLocalSocketAddress(), connected.channel().remoteAddress());
            connected.channel().close().await();
            ChannelFuture direct = connect(factory, group, "127.0.0.1", member.getLocalPort());
            assertTrue(direct.isSuccess(), () -> "an external address is reached as it is: " + direct.cause());
            direct.channel().close().await();
        } finally {
            threads.shutdownNow();
        }
    }

    @Test
    void unknownAddressesAndNamesFailAtOnceAndLeaveNoChannel() throws Exception {
        ExecutorService threads = Executors.newCachedThreadPool();
        try (var factory = new ExternalIpTransportFactory(Settings.file(map("no.such.host.invalid", 11222)))) {
            EventLoopGroup group = factory.createEventLoopGroup(1, threads);
            ChannelFuture unknown = connect(factory, group, "198.18.0.6", 11222);
            assertInstanceOf(ConnectException.class, unknown.cause());
            assertTrue(unknown.cause().getMessage().startsWith("198.18.0.6:11222 has no external address"));
            ChannelFuture unnamed = connect(factory, group, "198.18.0.5", 11222);
            assertInstanceOf(UnknownHostException.class, unnamed.cause());
            unknown.channel().closeFuture().await();
            unnamed.channel().closeFuture().await();
        } finally {
            threads.shutdownNow();
        }
    }

    @Test
    void aNameIsLookedUpAndReached() throws Exception {
        ExecutorService threads = Executors.newCachedThreadPool();
        try (ServerSocket member = new ServerSocket(0, 50, InetAddress.getByName("127.0.0.1"));
             var factory = new ExternalIpTransportFactory(Settings.file(map("localhost", member.getLocalPort())))) {
            ChannelFuture connected = connect(factory, factory.createEventLoopGroup(1, threads), "198.18.0.5", 11222);
            assertTrue(connected.isSuccess(), () -> "" + connected.cause());
            connected.channel().close().await();
        } finally {
            threads.shutdownNow();
        }
    }

    @Test
    void onePropertySetsIt() throws Exception {
        System.setProperty("external-ip.map", map("203.0.113.1", 11222).toString());
        try {
            Properties properties = new Properties();
            properties.setProperty("infinispan.client.hotrod.transport_factory", ExternalIpTransportFactory.class.getName());
            properties.setProperty("infinispan.client.hotrod.server_list", "203.0.113.1:11222");
            var configuration = new ConfigurationBuilder().withProperties(properties).build();
            assertInstanceOf(ExternalIpTransportFactory.class, configuration.transportFactory());
        } finally {
            System.clearProperty("external-ip.map");
        }
    }
}
