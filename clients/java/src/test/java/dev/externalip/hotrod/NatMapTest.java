package dev.externalip.hotrod;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.Set;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class NatMapTest {
    static InetSocketAddress at(String ip, int port) {
        try {
            return new InetSocketAddress(InetAddress.getByName(ip), port);
        } catch (IOException e) {
            throw new IllegalArgumentException(e);
        }
    }

    private static NatMap parse(String json) throws IOException {
        return NatMap.parse(json.getBytes(StandardCharsets.UTF_8));
    }

    @Test
    void bothFamiliesAndOtherPortsAreMapped() throws IOException {
        NatMap map = parse("""
            {"198.18.0.5:11222": {"host": "203.0.113.1", "port": 20001},
             "fd00::5:11222": {"host": "2001:db8::1", "port": 11222}}
            """);
        assertEquals(at("203.0.113.1", 20001), map.external().get(at("198.18.0.5", 11222)));
        assertEquals(at("2001:db8::1", 11222), map.external().get(at("fd00::5", 11222)));
        assertTrue(map.known().contains(at("203.0.113.1", 20001)));
    }

    @Test
    void aLoadBalancerWithANameOnlyIsLeftToTheConnection() throws IOException {
        NatMap map = parse("{\"198.18.0.5:11222\": {\"host\": \"a.example\", \"port\": 11222}}");
        assertTrue(map.external().get(at("198.18.0.5", 11222)).isUnresolved());
    }

    @Test
    void aMemberHasItsNamesAsWellAsItsAddress() throws IOException {
        NatMap map = parse("""
            {"infinispan-0.infinispan.data.svc:11222": {"host": "203.0.113.1", "port": 20001},
             "198.18.0.5:11222": {"host": "203.0.113.1", "port": 20001}}
            """);
        InetSocketAddress external = at("203.0.113.1", 20001);
        assertEquals(external, map.of(at("198.18.0.5", 11222)));
        assertEquals(external, map.of(InetSocketAddress.createUnresolved("infinispan-0.infinispan.data.svc", 11222)));
        assertEquals(Set.of(external), map.known());
        assertTrue(map.knows("INFINISPAN-0.infinispan.data.svc"));
        assertFalse(map.knows("infinispan-1.infinispan.data.svc") || map.knows("198.18.0.5"));
    }

    @Test
    void aNameDecidesWhateverItWasResolvedTo() throws IOException {
        NatMap map = parse("""
            {"infinispan-0.infinispan.data.svc:11222": {"host": "203.0.113.1", "port": 11222},
             "198.18.0.5:11222": {"host": "203.0.113.2", "port": 11222},
             "198.18.0.6:11222": {"host": "a.example", "port": 11222}}
            """);
        InetAddress elsewhere = InetAddress.getByName("198.18.0.5");
        var named = InetAddress.getByAddress("infinispan-0.infinispan.data.svc", elsewhere.getAddress());
        assertEquals(at("203.0.113.1", 11222), map.of(new InetSocketAddress(named, 11222)));
        assertNull(map.of(new InetSocketAddress(named, 7800)));
        var balancer = new InetSocketAddress(InetAddress.getByAddress("a.example", new byte[] {10, 0, 0, 1}), 11222);
        assertEquals(balancer, map.of(balancer), "a load balancer's name, looked up, is an external address");
        var unknown = InetAddress.getByAddress("other.example", elsewhere.getAddress());
        assertEquals(at("203.0.113.2", 11222), map.of(new InetSocketAddress(unknown, 11222)));
    }

    @Test
    void unknownFieldsArePassedOver() throws IOException {
        NatMap map = parse("{\"198.18.0.5:1\": {\"new\": {\"host\": \"x\"}, \"host\": \"203.0.113.1\", \"list\": [1], \"port\": 2}}");
        assertEquals(at("203.0.113.1", 2), map.external().get(at("198.18.0.5", 1)));
    }

    @ParameterizedTest
    @ValueSource(strings = {"", "[]", "null", "{", "{\"a\": 1}", "{\"198.18.0.5\": {\"host\": \"203.0.113.1\", \"port\": 1}}",
        "{\":1\": {\"host\": \"203.0.113.1\", \"port\": 1}}", "{\"198.18.0.5:0\": {\"host\": \"203.0.113.1\", \"port\": 1}}",
        "{\"198.18.0.5:1\": {\"host\": \"203.0.113.1\"}}", "{\"198.18.0.5:1\": {\"port\": 1}}",
        "{\"198.18.0.5:1\": {\"host\": \"203.0.113.1\", \"port\": 65536}}", "{} {}"})
    void anythingElseIsNoMap(String text) {
        assertThrows(IOException.class, () -> parse(text));
    }
}
