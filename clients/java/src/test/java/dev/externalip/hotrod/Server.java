package dev.externalip.hotrod;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;

import com.sun.net.httpserver.Headers;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpsConfigurator;
import com.sun.net.httpserver.HttpsServer;

/** A map server on loopback, with a certificate made by keytool. */
final class Server implements AutoCloseable {
    /** What is answered. */
    interface Answer {
        void to(HttpExchange exchange) throws Exception;
    }

    final Path ca;
    final List<Headers> asked = new CopyOnWriteArrayList<>();
    final List<String> queries = new CopyOnWriteArrayList<>();
    volatile Answer answer = exchange -> exchange.sendResponseHeaders(500, -1);
    private final HttpsServer server;
    private final ExecutorService threads = Executors.newCachedThreadPool();

    /** `names`: the certificate's, as keytool writes them. */
    Server(Path directory, String names) throws Exception {
        Path store = directory.resolve(names.hashCode() + ".p12");
        ca = directory.resolve(names.hashCode() + ".pem");
        keytool("-genkeypair", "-keyalg", "EC", "-dname", "CN=test", "-ext", "san=" + names, "-validity", "1", "-alias", "a",
            "-storetype", "PKCS12", "-keystore", store.toString(), "-storepass", "secret");
        keytool("-exportcert", "-rfc", "-alias", "a", "-keystore", store.toString(), "-storepass", "secret",
            "-file", ca.toString());
        KeyStore keys = KeyStore.getInstance("PKCS12");
        try (InputStream in = Files.newInputStream(store)) {
            keys.load(in, "secret".toCharArray());
        }
        KeyManagerFactory managers = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        managers.init(keys, "secret".toCharArray());
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(managers.getKeyManagers(), null, null);
        server = HttpsServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        server.setHttpsConfigurator(new HttpsConfigurator(context));
        server.setExecutor(threads);
        server.createContext("/", exchange -> {
            asked.add(exchange.getRequestHeaders());
            queries.add(exchange.getRequestURI().toString());
            try (exchange) {
                answer.to(exchange);
            } catch (Exception e) {
                throw new IOException(e); // the client has gone, or the test has ended
            }
        });
        server.start();
    }

    String url() {
        return "https://127.0.0.1:" + server.getAddress().getPort() + "/v1/mapping/data/infinispan";
    }

    static void send(HttpExchange exchange, String etag, String position, String body) throws Exception {
        exchange.getResponseHeaders().set("ETag", etag);
        exchange.getResponseHeaders().set("Map-Position", position);
        byte[] bytes = body.getBytes(StandardCharsets.UTF_8);
        exchange.sendResponseHeaders(200, bytes.length);
        exchange.getResponseBody().write(bytes);
    }

    static void unchanged(HttpExchange exchange) throws Exception {
        exchange.sendResponseHeaders(304, -1);
    }

    private static void keytool(String... arguments) throws Exception {
        Path program = Path.of(System.getProperty("java.home"), "bin", "keytool");
        var command = new ArrayList<>(List.of(program.toString()));
        command.addAll(List.of(arguments));
        Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
        String said = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        assertEquals(0, process.waitFor(), said);
    }

    @Override
    public void close() {
        server.stop(0);
        threads.shutdownNow();
    }
}
