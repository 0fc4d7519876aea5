package dev.externalip.hotrod;

import static dev.externalip.hotrod.NatMapTest.at;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.net.ConnectException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class AddressMapTest {
    @TempDir
    Path directory;

    static String oneEntry(String host, int port) {
        return "{\"198.18.0.5:11222\": {\"host\": \"" + host + "\", \"port\": " + port + "}}";
    }

    /** As kubelet does it: the file is reached through a link that is replaced. */
    private Path mounted(String content) throws Exception {
        Path version = Files.createTempDirectory(directory, "..v");
        Files.writeString(version.resolve("nat-map.json"), content);
        Path link = Files.createSymbolicLink(directory.resolve("..tmp"), version);
        Files.move(link, directory.resolve("..data"), StandardCopyOption.ATOMIC_MOVE);
        Path file = directory.resolve("nat-map.json");
        if (!Files.isSymbolicLink(file)) {
            Files.createSymbolicLink(file, Path.of("..data/nat-map.json"));
        }
        return file;
    }

    @Test
    void aMountedConfigMapIsFollowed() throws Exception {
        Path file = mounted(oneEntry("203.0.113.1", 11222));
        try (AddressMap map = AddressMap.open(Settings.file(file))) {
            assertEquals(at("203.0.113.1", 11222), map.external(at("198.18.0.5", 11222)));
            mounted(oneEntry("203.0.113.2", 20001));
            Wait.until("the new address", () -> map.external(at("198.18.0.5", 11222)).equals(at("203.0.113.2", 20001)));
        }
    }

    @Test
    void theLastGoodMapStaysWhereTheNextCannotBeRead() throws Exception {
        Path file = mounted(oneEntry("203.0.113.1", 11222));
        try (AddressMap map = AddressMap.open(Settings.file(file))) {
            mounted("{");
            Wait.until("the failure is told", () -> refusal(map).contains("cannot be read now: "));
            assertEquals(at("203.0.113.1", 11222), map.external(at("198.18.0.5", 11222)));
            mounted("{}");
            Wait.until("an empty map is a map", () -> map.size() == 0);
            assertTrue(!refusal(map).contains("cannot be read"), refusal(map));
        }
    }

    @Test
    void unknownAddressesAreRefusedAndExternalOnesPass() throws Exception {
        try (AddressMap map = AddressMap.open(Settings.file(mounted(oneEntry("203.0.113.1", 20001))))) {
            assertEquals(at("203.0.113.1", 20001), map.external(at("203.0.113.1", 20001)));
            assertThrows(ConnectException.class, () -> map.external(at("203.0.113.1", 11222)));
            assertThrows(ConnectException.class, () -> map.external(at("198.18.0.5", 11223)));
            assertTrue(refusal(map).startsWith("198.18.0.9:1 has no external address in the map of 1 at "), refusal(map));
        }
    }

    @Test
    void aClientMayStartBeforeItsMap() throws Exception {
        Path file = directory.resolve("later.json");
        try (AddressMap map = AddressMap.open(Settings.file(file))) {
            assertTrue(refusal(map).contains("there is no such file"), refusal(map));
            Files.writeString(file, oneEntry("203.0.113.1", 11222));
            Wait.until("the map is read", () -> map.size() == 1);
        }
    }

    private static String refusal(AddressMap map) {
        return assertThrows(ConnectException.class, () -> map.external(at("198.18.0.9", 1))).getMessage();
    }
}
