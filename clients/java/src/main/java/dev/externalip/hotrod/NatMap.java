package dev.externalip.hotrod;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;

import io.netty.util.NetUtil;

/**
 * One version of the map.
 *
 * @param external external address by the address inside, or by a member's name, which is not resolved; itself not
 *        resolved where the load balancer has a name only
 * @param known the external addresses: a client may have been given one of them to begin with
 */
record NatMap(Map<InetSocketAddress, InetSocketAddress> external, Set<InetSocketAddress> known) {
    static final NatMap EMPTY = new NatMap(Map.of());
    private static final JsonFactory JSON = new JsonFactory();

    private NatMap(Map<InetSocketAddress, InetSocketAddress> external) {
        this(Map.copyOf(external), Set.copyOf(new HashSet<>(external.values())));
    }

    /** Reads <code>{"IP:PORT": {"host": "...", "port": N}}</code>; fields it does not know are passed over. */
    static NatMap parse(byte[] json) throws IOException {
        Map<InetSocketAddress, InetSocketAddress> external = new HashMap<>();
        try (JsonParser parser = JSON.createParser(json)) {
            expect(parser, parser.nextToken(), JsonToken.START_OBJECT);
            while (parser.nextToken() == JsonToken.FIELD_NAME) {
                InetSocketAddress internal = address(parser.currentName());
                external.put(internal, target(parser));
            }
            if (parser.nextToken() != null) {
                throw new IOException("not a nat-map: something follows it");
            }
        } catch (JsonProcessingException e) {
            throw new IOException("not a nat-map: " + e.getOriginalMessage(), e);
        }
        return new NatMap(external);
    }

    /**
     * Where to connect instead; null where nothing is known of it. By the name first, if it has one: what that was resolved
     * to outside is somebody else's.
     */
    InetSocketAddress of(InetSocketAddress internal) {
        InetSocketAddress named = InetSocketAddress.createUnresolved(internal.getHostString(), internal.getPort());
        for (InetSocketAddress known : List.of(named, internal)) {
            if (external.containsKey(known)) {
                return external.get(known);
            }
            if (this.known.contains(known)) {
                return internal;
            }
        }
        return null;
    }

    /** Whether it is a member's name. */
    boolean knows(String name) {
        return external.keySet().stream().anyMatch(key -> key.isUnresolved() && key.getHostString().equalsIgnoreCase(name));
    }

    /** The port follows the last colon; IPv6 addresses stand without brackets. */
    private static InetSocketAddress address(String key) throws IOException {
        int colon = key.lastIndexOf(':');
        if (colon < 1) {
            throw new IOException("not a nat-map: the key \"" + key + "\" is not IP:PORT or NAME:PORT");
        }
        return address(key.substring(0, colon), port(key.substring(colon + 1)));
    }

    private static InetSocketAddress address(String host, int port) {
        InetAddress ip = NetUtil.createInetAddressFromIpAddressString(host);
        return ip == null ? InetSocketAddress.createUnresolved(host, port) : new InetSocketAddress(ip, port);
    }

    private static InetSocketAddress target(JsonParser parser) throws IOException {
        expect(parser, parser.nextToken(), JsonToken.START_OBJECT);
        String host = null;
        String port = null;
        while (parser.nextToken() == JsonToken.FIELD_NAME) {
            String name = parser.currentName();
            JsonToken value = parser.nextToken();
            if (name.equals("host")) {
                host = parser.getText();
            } else if (name.equals("port")) {
                port = parser.getText();
            } else if (value.isStructStart()) {
                parser.skipChildren();
            }
        }
        if (host == null || port == null) {
            throw new IOException("not a nat-map: host and port belong to each entry");
        }
        return address(host, port(port));
    }

    private static int port(String text) throws IOException {
        try {
            int port = Integer.parseInt(text);
            if (port > 0 && port < 65536) {
                return port;
            }
        } catch (NumberFormatException e) {
            // as any other text that is no port
        }
        throw new IOException("not a nat-map: \"" + text + "\" is not a port");
    }

    private static void expect(JsonParser parser, JsonToken found, JsonToken wanted) throws IOException {
        if (found != wanted) {
            throw new IOException("not a nat-map: an object is expected at " + parser.currentLocation().offsetDescription());
        }
    }
}
