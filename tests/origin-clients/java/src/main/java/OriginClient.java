import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

import org.yaml.snakeyaml.Yaml;

/** Reads the map as Java clients of external-ip-proxy did: whatever SnakeYAML makes of it, then casts. */
public final class OriginClient {
    public static void main(String[] files) throws IOException {
        for (String file : files) {
            System.out.println("document " + file);
            try (InputStream in = Files.newInputStream(Path.of(file))) {
                read(in);
            }
        }
    }

    @SuppressWarnings("unchecked")
    private static void read(InputStream in) {
        var document = (Map<String, Map<String, Object>>) new Yaml().loadAll(in).iterator().next();
        var runtime = document.get("runtime-configuration");
        String service = (String) runtime.get("service-ip");
        System.out.println(("service-ip " + (service == null ? "" : service)).strip());
        for (String entry : (List<String>) runtime.get("external-mapping")) {
            String[] addresses = entry.split(":");
            if (addresses.length != 2) {
                throw new IllegalArgumentException("not inside:outside: " + entry);
            }
            System.out.println(addresses[0] + " " + addresses[1]);
        }
    }
}
