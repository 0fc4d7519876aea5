package dev.externalip.hotrod;

import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.Optional;

/**
 * The controller's document of one cluster. A request is held until the map differs from the one read last; a server that
 * answers at once is asked again by {@link AddressMap}, so both kinds serve.
 */
final class HttpsSource implements Source {
    /** How long the server may hold a request, in seconds: shorter than what proxies and load balancers cut. */
    private static final int HOLD = 30;
    /** The server holds it, then answers; what takes this much longer is lost. */
    private static final Duration LIMIT = Duration.ofSeconds(HOLD + 10);
    private static final Duration CONNECT = Duration.ofSeconds(5);
    private static final String POSITION = "Map-Position";

    private final URI document;
    private final Path ca;
    private final Path token;
    private byte[] trusted;
    private HttpClient client;
    /** Of the map read last. */
    private String etag;
    /** How much of the cluster's history that map knew: a replica that knows less catches up before it answers. */
    private String position;

    HttpsSource(URI document, Path ca, Path token) {
        this.document = URI.create(document + (document.getQuery() == null ? "?" : "&") + "format=nat-map&wait=" + HOLD);
        this.ca = ca;
        this.token = token;
    }

    @Override
    public Optional<NatMap> read() throws IOException, InterruptedException {
        HttpResponse<byte[]> answer = client().send(request(), BodyHandlers.ofByteArray());
        if (answer.statusCode() == 400 && said(answer.body()).contains("InvalidPosition")) {
            etag = null;
            position = null; // of another version: begin anew
        }
        Optional<NatMap> map = map(answer);
        if (map.isPresent()) {
            etag = answer.headers().firstValue("ETag").orElse(null);
        }
        position = answer.headers().firstValue(POSITION).orElse(position);
        return map;
    }

    private static Optional<NatMap> map(HttpResponse<byte[]> answer) throws IOException {
        int status = answer.statusCode();
        if (status == 200) {
            return Optional.of(NatMap.parse(answer.body()));
        }
        if (status == 304) {
            return Optional.empty();
        }
        if (status == 404 && answer.headers().firstValue(POSITION).isPresent()) {
            return Optional.of(NatMap.EMPTY); // the map itself was asked, and such a cluster has no pods
        }
        throw new IOException("answered with " + status + said(answer.body()));
    }

    private HttpRequest request() throws IOException {
        HttpRequest.Builder request = HttpRequest.newBuilder(document).timeout(LIMIT);
        if (token != null) {
            request.header("Authorization", "Bearer " + Files.readString(token).strip());
        }
        if (etag != null) {
            request.header("If-None-Match", etag);
        }
        if (position != null) {
            request.header(POSITION, position);
        }
        return request.build();
    }

    /** A new one where the certificates to trust have changed: they are rotated. */
    private HttpClient client() throws IOException {
        byte[] now = ca == null ? null : Files.readAllBytes(ca);
        if (client == null || !Arrays.equals(now, trusted)) {
            HttpClient.Builder builder = HttpClient.newBuilder().connectTimeout(CONNECT);
            if (now != null) {
                builder.sslContext(Trust.only(now));
            }
            client = builder.build();
            trusted = now;
        }
        return client;
    }

    /** The beginning of what the server says about it: a problem has a reason and a remedy. */
    private static String said(byte[] body) {
        String text = new String(body, 0, Math.min(body.length, 300), StandardCharsets.UTF_8).strip();
        return text.isEmpty() ? "" : ": " + text;
    }
}
