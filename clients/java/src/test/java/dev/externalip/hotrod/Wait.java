package dev.externalip.hotrod;

import static org.junit.jupiter.api.Assertions.fail;

import java.util.concurrent.Callable;

/** Waits for what another thread does. */
final class Wait {
    private Wait() {
    }

    static void until(String what, Callable<Boolean> condition) throws Exception {
        long limit = System.nanoTime() + 20_000_000_000L;
        while (!condition.call()) {
            if (System.nanoTime() > limit) {
                fail("not within 20 s: " + what);
            }
            Thread.sleep(5);
        }
    }
}
