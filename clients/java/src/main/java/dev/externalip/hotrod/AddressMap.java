package dev.externalip.hotrod;

import java.io.IOException;
import java.lang.System.Logger;
import java.lang.System.Logger.Level;
import java.net.ConnectException;
import java.net.InetSocketAddress;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;

/** The map of one cluster, followed by a thread of its own: {@link #external} answers from memory. */
public final class AddressMap implements AutoCloseable {
    private static final Logger LOG = System.getLogger(AddressMap.class.getName());
    /** How long the start of a client waits for the first map; it is slower than any healthy server. */
    private static final Duration FIRST = Duration.ofSeconds(5);
    /** Between two readings of a source that answers at once although nothing has changed. */
    private static final Duration POLL = Duration.ofSeconds(1);
    /** After the first failure, doubled by each more: long enough that many clients do not keep a server down. */
    private static final Duration RETRY = Duration.ofMillis(500);
    private static final Duration LONGEST_RETRY = Duration.ofSeconds(10);

    private final String name;
    private final Source source;
    private final Thread follower;
    private final CountDownLatch first = new CountDownLatch(1);
    private volatile NatMap current = NatMap.EMPTY;
    private volatile String failure;

    private AddressMap(String name, Source source) {
        this.name = name;
        this.source = source;
        follower = new Thread(this::follow, "external-ip-map");
        follower.setDaemon(true);
    }

    /**
     * Begins to follow it. Returns when the map has been read once or that has failed, after 5 seconds at most: a client
     * may start before its map can be read, and its connections are refused until then.
     */
    public static AddressMap open(Settings settings) {
        return open(settings.map(), settings.source());
    }

    static AddressMap open(String name, Source source) {
        AddressMap map = new AddressMap(name, source);
        map.follower.start();
        try {
            if (!map.first.await(FIRST.toMillis(), TimeUnit.MILLISECONDS)) {
                LOG.log(Level.WARNING, "no map yet from {0}", name);
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
        return map;
    }

    /**
     * Where to connect instead of an address inside, or of a member's name, resolved or not. An external address is answered
     * as it is.
     *
     * @return not resolved where the load balancer has a name only
     * @throws ConnectException where the map does not know the address: trying it would take a connect timeout, and
     *         might reach somebody else
     */
    public InetSocketAddress external(InetSocketAddress internal) throws ConnectException {
        InetSocketAddress external = current.of(internal);
        if (external != null) {
            return external;
        }
        String problem = failure;
        throw new ConnectException(text(internal) + " has no external address in the map of " + size() + " at " + name
            + (problem == null ? "" : ", which cannot be read now: " + problem));
    }

    /** How many external addresses it has. */
    public int size() {
        return current.known().size();
    }

    /** Whether a member has this name: then no other lookup knows better. */
    boolean knows(String name) {
        return current.knows(name);
    }

    /** Stops following it. What was read last stays. */
    @Override
    public void close() {
        follower.interrupt();
    }

    private void follow() {
        Duration retry = RETRY;
        try {
            while (true) {
                long begun = System.nanoTime();
                try {
                    boolean changed = take(source.read());
                    retry = RETRY;
                    if (!changed) {
                        sleep(POLL.minusNanos(System.nanoTime() - begun));
                    }
                } catch (IOException e) {
                    failed(e);
                    // not all clients of a server that comes back at the same moment
                    sleep(retry.multipliedBy(50 + ThreadLocalRandom.current().nextInt(51)).dividedBy(100));
                    retry = retry.multipliedBy(2).compareTo(LONGEST_RETRY) < 0 ? retry.multipliedBy(2) : LONGEST_RETRY;
                }
            }
        } catch (InterruptedException e) {
            // closed
        }
    }

    private boolean take(Optional<NatMap> read) {
        boolean changed = read.isPresent() && !read.get().equals(current);
        read.ifPresent(map -> current = map);
        failure = null;
        first.countDown();
        return changed;
    }

    private void failed(IOException e) {
        String reason = e.getMessage() == null ? e.getClass().getSimpleName() : e.getMessage();
        if (!reason.equals(failure)) {
            LOG.log(Level.WARNING, "the map at {0} cannot be read, the last one, of {1}, stays in use: {2}", name, size(), reason);
        }
        failure = reason;
        first.countDown();
    }

    private static void sleep(Duration time) throws InterruptedException {
        TimeUnit.NANOSECONDS.sleep(time.toNanos());
    }

    private static String text(InetSocketAddress address) {
        return address.getHostString() + ":" + address.getPort();
    }
}
