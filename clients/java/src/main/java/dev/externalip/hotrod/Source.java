package dev.externalip.hotrod;

import java.io.IOException;
import java.util.Optional;

/** Where the map comes from. */
interface Source {
    /**
     * The map as it is now. May take half a minute where it knows that the map is still the one it gave last.
     *
     * @return nothing where it is the one it gave last
     * @throws IOException where it cannot be read or is no map; the message is for people
     */
    Optional<NatMap> read() throws IOException, InterruptedException;
}
