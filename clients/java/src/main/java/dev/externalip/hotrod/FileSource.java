package dev.externalip.hotrod;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.Optional;

/** A file that somebody replaces, as kubelet does with a mounted ConfigMap. Read each time: it is small. */
record FileSource(Path file) implements Source {
    @Override
    public Optional<NatMap> read() throws IOException {
        try {
            return Optional.of(NatMap.parse(Files.readAllBytes(file)));
        } catch (NoSuchFileException e) {
            throw new IOException("there is no such file", e);
        }
    }
}
