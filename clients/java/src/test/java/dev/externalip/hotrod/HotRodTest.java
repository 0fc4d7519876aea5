package dev.externalip.hotrod;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;

import org.infinispan.client.hotrod.RemoteCacheManager;
import org.infinispan.client.hotrod.configuration.ConfigurationBuilder;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Infinispan's own client, whole. */
class HotRodTest {
    /** The first byte of each Hot Rod request. */
    private static final int REQUEST = 0xA0;

    @TempDir
    Path directory;

    private ExternalIpTransportFactory by(String map) throws Exception {
        return new ExternalIpTransportFactory(Settings.file(Files.writeString(directory.resolve("nat-map.json"), map)));
    }

    private static RemoteCacheManager client(ExternalIpTransportFactory factory, String host) {
        var configuration = new ConfigurationBuilder().transportFactory(factory);
        configuration.addServer().host(host).port(11222);
        configuration.socketTimeout(1000);
        return new RemoteCacheManager(configuration.build(), false);
    }

    @Test
    void aMemberIsReachedByItsName() throws Exception {
        try (ServerSocket member = new ServerSocket(0, 50, InetAddress.getByName("127.0.0.1"));
             var factory = by("{\"infinispan-0.infinispan.data.svc:11222\": {\"host\": \"127.0.0.1\", \"port\": " + member.getLocalPort() + "}}");
             RemoteCacheManager client = client(factory, "infinispan-0.infinispan.data.svc")) {
            member.setSoTimeout(20_000);
            var starting = new Thread(client::start);
            starting.start();
            try (Socket connection = member.accept()) {
                assertEquals(REQUEST, connection.getInputStream().read());
            }
            starting.join(); // nobody answers it
        }
    }

    @Test
    void withAnEmptyMapItFailsAtOnceAndSaysWhy() throws Exception {
        refused();
        // the first time it also loads the client's classes, which is the machine's speed
        long begun = System.nanoTime();
        refused();
        long millis = (System.nanoTime() - begun) / 1_000_000;
        assertTrue(millis < 2000, "after " + millis + " ms");
    }

    private void refused() throws Exception {
        try (var factory = by("{}"); RemoteCacheManager client = client(factory, "198.18.0.5")) {
            var failure = assertThrows(RuntimeException.class, () -> {
                client.start();
                client.getCache("data").get("key");
            });
            var told = new StringBuilder();
            for (Throwable cause = failure; cause != null; cause = cause.getCause()) {
                told.append(cause).append('\n');
            }
            assertTrue(told.indexOf("198.18.0.5:11222 has no external address in the map of 0") >= 0, told::toString);
        }
    }
}
