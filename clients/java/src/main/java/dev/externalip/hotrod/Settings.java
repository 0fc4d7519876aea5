package dev.externalip.hotrod;

import java.net.URI;
import java.nio.file.Path;
import java.util.function.UnaryOperator;

/**
 * Where the map is and how it is read.
 *
 * @param map the document of one cluster: {@code https://HOST:8888/v1/mapping/NAMESPACE/CLUSTER}, or the path of
 *        {@code nat-map.json} from the ConfigMap {@code CLUSTER-external-ips}, mounted
 * @param ca PEM file of the certificates to trust, such as {@code ca.crt} from that ConfigMap; null: those of Java
 * @param token file with the bearer token, read again for each request; null: none is sent
 */
public record Settings(String map, Path ca, Path token) {
    /** Says what is wrong with an address that is neither HTTPS nor a file. */
    public Settings {
        if (map == null || map.isBlank()) {
            throw new IllegalArgumentException("where is the map? Set the system property external-ip.map or the "
                + "variable EXTERNAL_IP_MAP to https://HOST:8888/v1/mapping/NAMESPACE/CLUSTER or to the path of "
                + "nat-map.json");
        }
        if (map.startsWith("http:")) {
            throw new IllegalArgumentException(map + ": the map decides where connections go, so it is read by https "
                + "only");
        }
    }

    /** A map in a file: no certificates and no token. */
    public static Settings file(Path map) {
        return new Settings(map.toString(), null, null);
    }

    /**
     * The system properties {@code external-ip.map}, {@code external-ip.ca-file} and {@code external-ip.token-file}, or
     * else the variables {@code EXTERNAL_IP_MAP}, {@code EXTERNAL_IP_CA_FILE} and {@code EXTERNAL_IP_TOKEN_FILE}.
     */
    public static Settings fromEnvironment() {
        return from(name -> System.getProperty("external-ip." + name.toLowerCase().replace('_', '-'),
            System.getenv("EXTERNAL_IP_" + name)));
    }

    static Settings from(UnaryOperator<String> value) {
        return new Settings(value.apply("MAP"), path(value.apply("CA_FILE")), path(value.apply("TOKEN_FILE")));
    }

    Source source() {
        return map.startsWith("https:") ? new HttpsSource(URI.create(map), ca, token) : new FileSource(Path.of(map));
    }

    private static Path path(String text) {
        return text == null || text.isBlank() ? null : Path.of(text);
    }
}
