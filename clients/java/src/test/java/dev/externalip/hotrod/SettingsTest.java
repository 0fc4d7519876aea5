package dev.externalip.hotrod;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Path;
import java.util.Map;

import org.junit.jupiter.api.Test;

class SettingsTest {
    @Test
    void allComesFromNamedValues() {
        Settings settings = Settings.from(Map.of("MAP", "https://203.0.113.9:8888/v1/mapping/data/infinispan",
            "CA_FILE", "/etc/ca.crt", "TOKEN_FILE", "/run/token")::get);
        assertEquals(Path.of("/etc/ca.crt"), settings.ca());
        assertEquals(Path.of("/run/token"), settings.token());
        assertTrue(settings.source() instanceof HttpsSource);
    }

    @Test
    void aPathIsAFile() {
        Settings settings = Settings.from(Map.of("MAP", "/etc/map/nat-map.json")::get);
        assertNull(settings.ca());
        assertTrue(settings.source() instanceof FileSource);
    }

    @Test
    void whatIsMissingOrNotSafeIsSaid() {
        var missing = assertThrows(IllegalArgumentException.class, () -> Settings.from(name -> null));
        assertTrue(missing.getMessage().contains("EXTERNAL_IP_MAP"), missing.getMessage());
        assertThrows(IllegalArgumentException.class, () -> Settings.from(name -> "http://203.0.113.9:8888/"));
    }
}
