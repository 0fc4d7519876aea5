"""Redis clients outside. Run by `run`, which prepares."""

import os
import socket
import tempfile
import unittest

import redis
from store import PORT, Door, Store, inside, outside, swallow, until


def setUpModule():
    global store
    swallow()
    store = Store(tempfile.mkdtemp(prefix="store-", dir=os.environ["WORK"]))
    unittest.addModuleCleanup(store.end)
    for n in range(1, 5):
        unittest.addModuleCleanup(Door(store, n).close)


class Announced(unittest.TestCase):
    """docs/announce.md: the servers know their external addresses, the clients need no map."""

    def announce(self, hosts, kind):
        for n, host in hosts.items():
            store.ask(n, "CONFIG", "SET", "cluster-announce-hostname", host)
            store.ask(n, "CONFIG", "SET", "cluster-preferred-endpoint-type", kind)
        for host in hosts.values():
            until("the others know", lambda: all(host in store.ask(n, "CLUSTER", "SLOTS") for n in hosts))

    def test_an_external_address_as_host_name_leads_clients_and_leaves_members_alone(self):
        self.addCleanup(self.announce, {n: "" for n in range(1, 5)}, "ip")
        self.announce({n: outside(n) for n in range(1, 4)}, "hostname")
        before = store.redirects()
        cluster = redis.RedisCluster(host=outside(1), port=PORT, socket_connect_timeout=10)
        self.addCleanup(cluster.close)
        for n in range(100):
            cluster.set(f"announced:{n}", n)
        keys = store.keys("announced")
        self.assertEqual((sum(keys.values()), store.redirects()), (100, before))
        self.assertTrue(all(keys[n] > 10 for n in (1, 2, 3)), keys)
        for line in store.ask(1, "CLUSTER", "NODES").splitlines():
            self.assertRegex(line, r" 198\.18\.0\.\d+:6379@16379.* connected")


class Outside(unittest.TestCase):
    def test_members_are_not_reached_directly(self):
        for n in range(1, 4):
            self.assertRaises(TimeoutError, socket.create_connection, (inside(n), PORT), 0.3)


if __name__ == "__main__":
    unittest.main(verbosity=1)
