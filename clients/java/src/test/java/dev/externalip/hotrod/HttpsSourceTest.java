package dev.externalip.hotrod;

import static dev.externalip.hotrod.AddressMapTest.oneEntry;
import static dev.externalip.hotrod.NatMapTest.at;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.CountDownLatch;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class HttpsSourceTest {
    @TempDir
    Path directory;

    @Test
    void whatWasReadIsSentBackAndTheTokenIsReadEachTime() throws Exception {
        try (Server server = new Server(directory, "ip:127.0.0.1")) {
            Path token = Files.writeString(directory.resolve("token"), "first\n");
            HttpsSource source = new HttpsSource(URI.create(server.url()), server.ca, token);
            server.answer = exchange -> Server.send(exchange, "\"a\"", "p1.s1.e1.n1", oneEntry("203.0.113.1", 11222));
            assertEquals(1, source.read().orElseThrow().external().size());
            Files.writeString(token, "second");
            server.answer = exchange -> {
                exchange.getResponseHeaders().set("Map-Position", "p2.s1.e1.n1");
                Server.unchanged(exchange);
            };
            assertTrue(source.read().isEmpty());
            assertTrue(source.read().isEmpty());
            assertEquals("/v1/mapping/data/infinispan?format=nat-map&wait=30", server.queries.get(0));
            assertEquals("Bearer first", server.asked.get(0).getFirst("Authorization"));
            assertNull(server.asked.get(0).getFirst("If-None-Match"));
            assertNull(server.asked.get(0).getFirst("Map-Position"));
            assertEquals("Bearer second", server.asked.get(1).getFirst("Authorization"));
            assertEquals("\"a\"", server.asked.get(1).getFirst("If-None-Match"));
            assertEquals("p1.s1.e1.n1", server.asked.get(1).getFirst("Map-Position"));
            assertEquals("p2.s1.e1.n1", server.asked.get(2).getFirst("Map-Position"));
        }
    }

    @Test
    void aPositionThatIsNotUnderstoodIsForgotten() throws Exception {
        try (Server server = new Server(directory, "ip:127.0.0.1")) {
            HttpsSource source = new HttpsSource(URI.create(server.url()), server.ca, null);
            server.answer = exchange -> {
                if (exchange.getRequestHeaders().getFirst("Map-Position") == null) {
                    Server.send(exchange, "\"a\"", "p1.s1.e1.n1", oneEntry("203.0.113.1", 11222));
                } else {
                    byte[] problem = "{\"reason\": \"InvalidPosition\"}".getBytes();
                    exchange.sendResponseHeaders(400, problem.length);
                    exchange.getResponseBody().write(problem);
                }
            };
            source.read();
            assertThrows(IOException.class, source::read);
            assertEquals(1, source.read().orElseThrow().external().size());
        }
    }

    @Test
    void aServerThatHoldsRequestsIsFollowedAtOnce() throws Exception {
        try (Server server = new Server(directory, "ip:127.0.0.1")) {
            CountDownLatch changed = new CountDownLatch(1);
            server.answer = exchange -> {
                if (exchange.getRequestHeaders().getFirst("If-None-Match") == null) {
                    Server.send(exchange, "\"a\"", "p1.s1.e1.n1", oneEntry("203.0.113.1", 11222));
                } else {
                    changed.await();
                    Server.send(exchange, "\"b\"", "p2.s1.e1.n1", oneEntry("203.0.113.2", 11222));
                }
            };
            try (AddressMap map = AddressMap.open(new Settings(server.url(), server.ca, null))) {
                assertEquals(at("203.0.113.1", 11222), map.external(at("198.18.0.5", 11222)));
                Wait.until("a request is held", () -> server.asked.size() == 2);
                changed.countDown();
                Wait.until("the new map", () -> map.external(at("198.18.0.5", 11222)).equals(at("203.0.113.2", 11222)));
            }
        }
    }

    @Test
    void aServerThatHoldsNothingIsAskedOnceASecond() throws Exception {
        try (Server server = new Server(directory, "ip:127.0.0.1")) {
            server.answer = exchange -> Server.send(exchange, "\"a\"", "p1.s1.e1.n1", oneEntry("203.0.113.1", 11222));
            long begun = System.nanoTime();
            try (AddressMap map = AddressMap.open(new Settings(server.url(), server.ca, null))) {
                // the first answer was news
                Wait.until("three more questions", () -> server.asked.size() >= 4);
                assertEquals(1, map.size());
            }
            assertTrue(System.nanoTime() - begun > 1_900_000_000L, "it does not ask in a loop");
        }
    }

    @Test
    void aFailingServerLeavesTheLastMapAndARestoredOneIsFollowed() throws Exception {
        try (Server server = new Server(directory, "ip:127.0.0.1")) {
            server.answer = exchange -> Server.send(exchange, "\"a\"", "p1.s1.e1.n1", oneEntry("203.0.113.1", 11222));
            try (AddressMap map = AddressMap.open(new Settings(server.url(), server.ca, null))) {
                server.answer = exchange -> exchange.sendResponseHeaders(503, -1);
                int before = server.asked.size();
                Wait.until("it was refused twice", () -> server.asked.size() >= before + 2);
                assertEquals(at("203.0.113.1", 11222), map.external(at("198.18.0.5", 11222)));
                server.answer = exchange -> exchange.sendResponseHeaders(404, -1);
                int proxied = server.asked.size();
                Wait.until("something else in its place has said twice that there is nothing",
                    () -> server.asked.size() >= proxied + 2);
                assertEquals(1, map.size());
                server.answer = exchange -> {
                    exchange.getResponseHeaders().set("Map-Position", "p2.s1.e1.n1");
                    exchange.sendResponseHeaders(404, -1);
                };
                Wait.until("a cluster without pods has no addresses", () -> map.size() == 0);
                server.answer = exchange -> Server.send(exchange, "\"b\"", "p3.s1.e1.n1", oneEntry("203.0.113.3", 11222));
                Wait.until("it is there again", () -> map.size() == 1);
            }
        }
    }

    @Test
    void onlyTheServerThatIsMeantIsBelieved() throws Exception {
        try (Server server = new Server(directory, "ip:127.0.0.1"); Server other = new Server(directory, "ip:127.0.0.2")) {
            server.answer = exchange -> Server.send(exchange, "\"a\"", "p1.s1.e1.n1", "{}");
            other.answer = server.answer;
            var anotherCa = new HttpsSource(URI.create(server.url()), other.ca, null);
            assertThrows(IOException.class, anotherCa::read);
            var anotherName = new HttpsSource(URI.create(other.url()), other.ca, null);
            assertThrows(IOException.class, anotherName::read);
            assertTrue(server.asked.isEmpty() && other.asked.isEmpty(), "nothing was said to them");
            Path ca = Files.copy(other.ca, directory.resolve("ca"));
            var source = new HttpsSource(URI.create(server.url()), ca, null);
            assertThrows(IOException.class, source::read);
            Files.write(ca, Files.readAllBytes(server.ca));
            assertEquals(NatMap.EMPTY, source.read().orElseThrow(), "a rotated file is read again");
        }
    }

    @Test
    void aRefusalIsToldInTheServersWords() throws Exception {
        try (Server server = new Server(directory, "ip:127.0.0.1")) {
            server.answer = exchange -> {
                exchange.sendResponseHeaders(403, 9);
                exchange.getResponseBody().write("Forbidden".getBytes());
            };
            var source = new HttpsSource(URI.create(server.url()), server.ca, null);
            assertEquals("answered with 403: Forbidden", assertThrows(IOException.class, source::read).getMessage());
        }
    }
}
