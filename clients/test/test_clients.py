"""Redis clients outside, by the live map: each test with redis-py, ioredis and redis-rs. Run by `run`, which prepares."""

import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import unittest

import redis
from store import PORT, Door, Store, inside, outside, swallow, until

HERE = pathlib.Path(__file__).parent
CLIENTS = {
    "redis-py": [os.environ["PYTHON"], str(HERE / "workload.py")],
    "ioredis": ["node", str(HERE / "workload.cjs")],
    "redis-rs": [os.environ["REDIS_BY_THE_MAP"]],
}


class Map:
    """The product's map server, and what it is to publish."""

    def __init__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="map-", dir=os.environ["WORK"]))
        with open(self.directory / "log", "wb") as log:
            self.process = subprocess.Popen([os.environ["MAP_SERVER"], self.directory], stdout=log, stderr=log)

    def publish(self, members):
        """members: inside number -> outside number."""
        lines = [f"{inside(i)}:{PORT} {outside(o)}:{PORT}\n" for i, o in members.items()]
        (self.directory / "new").write_text("".join(lines))
        os.replace(self.directory / "new", self.directory / "map")

    def arguments(self):
        until("the map is served", (self.directory / "url").exists)
        url = (self.directory / "url").read_text()
        return [url, "data", "store", str(self.directory / "ca.crt"), str(self.directory / "token")]

    def end(self):
        self.process.kill()
        self.process.wait()


class Client:
    def __init__(self, name, the_map, limit=10):
        """limit: how long it waits for its first map, in seconds."""
        self.errors = open(the_map.directory / f"{name}.log", "w+b")
        command = [*CLIENTS[name], *the_map.arguments(), str(limit)]
        self.process = subprocess.Popen(
            command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors
        )
        self.began = self.line()

    def line(self):
        return json.loads(self.process.stdout.readline() or '{"done": 0, "error": "it has ended"}')

    def work(self, prefix, count):
        self.process.stdin.write(f"{prefix} {count}\n")
        self.process.stdin.flush()
        return self.line()

    def said(self):
        self.errors.seek(0)
        return self.errors.read().decode()

    def end(self):
        self.process.kill()
        self.process.communicate()
        self.errors.close()


def setUpModule():
    global store, doors
    swallow()
    store = Store(tempfile.mkdtemp(prefix="store-", dir=os.environ["WORK"]))
    unittest.addModuleCleanup(store.end)
    doors = {n: Door(store, n) for n in range(1, 5)}
    for door in doors.values():
        unittest.addModuleCleanup(door.close)


class ByTheMap:
    """What holds for each client."""

    def setUp(self):
        self.map = Map()
        self.addCleanup(self.map.end)
        self.map.publish({n: n for n in range(1, 5)})

    def start(self):
        client = Client(self.name, self.map)
        self.addCleanup(client.end)
        self.assertEqual(client.began, {"ready": True}, client.said())
        return client

    def all_done(self, client, prefix, count):
        result = client.work(prefix, count)
        self.assertEqual((result["done"], result["error"]), (count, None), client.said())
        # a connection that does not come costs 10 s
        self.assertLess(result["slowest"], 5)

    def test_every_member_is_reached_in_one_hop(self):
        client = self.start()
        before = store.redirects()
        self.all_done(client, f"hop-{self.name}", 300)
        keys = store.keys(f"hop-{self.name}")
        self.assertEqual(store.redirects(), before)
        self.assertEqual(sum(keys.values()), 300)
        self.assertTrue(all(keys[n] > 60 for n in (1, 2, 3)), keys)

    def test_an_empty_map_is_told_within_two_seconds_of_the_first_question(self):
        empty = Map()
        self.addCleanup(empty.end)
        empty.publish({})
        client = Client(self.name, empty, limit=1.5)
        self.addCleanup(client.end)
        self.assertEqual(client.began["error"], "the map has no members", client.said())
        self.assertLess(client.began["after"], 2)

    def test_a_member_that_is_made_again_is_followed(self):
        self.map.publish({1: 1, 2: 2, 3: 3})
        client = self.start()
        self.all_done(client, f"before-{self.name}", 50)
        # another address inside, the same outside
        store.move(3, inside(13))
        self.addCleanup(store.move, 3, inside(3))
        self.map.publish({1: 1, 2: 2, 13: 3})
        doors[3].cut()
        until("it is followed", lambda: client.work(f"meanwhile-{self.name}", 30)["error"] is None)
        self.all_done(client, f"after-{self.name}", 100)
        keys = store.keys(f"after-{self.name}")
        self.assertTrue(all(keys[n] > 10 for n in (1, 2, 3)), keys)

    def test_redirects_lead_outside(self):
        client = self.start()
        prefix = "{" + self.name + "}"  # one slot
        self.all_done(client, prefix, 5)
        slot = store.slot(prefix)
        home = next(n for n, slots in store.slots.items() if slot in slots)
        # 4 is in no client's table: it holds no slot
        store.begin_move(slot, home, 4)
        self.addCleanup(store.move_back, slot, 4, home)
        self.all_done(client, f"{prefix}-ask", 5)
        self.assertEqual(store.keys(f"{prefix}-ask")[4], 5)
        store.end_move(slot, home, 4)
        self.all_done(client, f"{prefix}-moved", 5)
        self.assertEqual(store.keys(f"{prefix}-moved")[4], 5)

    def test_the_last_good_map_serves_while_the_controller_is_away(self):
        client = self.start()
        self.map.end()
        self.all_done(client, f"away-{self.name}", 50)


class RedisPy(ByTheMap, unittest.TestCase):
    name = "redis-py"


class Ioredis(ByTheMap, unittest.TestCase):
    name = "ioredis"


class RedisRs(ByTheMap, unittest.TestCase):
    name = "redis-rs"


class Documented(unittest.TestCase):
    """The examples of docs/clients.md, as somebody who has just copied them: the map's address alone is another."""

    def run_example(self, language, copied, *command):
        the_map = Map()
        self.addCleanup(the_map.end)
        the_map.publish({n: n for n in range(1, 5)})
        url = the_map.arguments()[0]
        text = (HERE.parents[1] / "docs/clients.md").read_text()
        example = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL).group(1)
        self.assertIn("https://203.0.113.9:8888", example)
        file = the_map.directory / f"example{copied.suffix}"
        file.write_text(example.replace("https://203.0.113.9:8888", url))
        shutil.copy(copied, the_map.directory)
        (the_map.directory / "node_modules").symlink_to(os.environ["NODE_PATH"])
        slot = next(n for n, slots in store.slots.items() if store.slot("key") in slots)
        store.ask(slot, "DEL", "key")
        client = subprocess.Popen([*command, file.name], cwd=the_map.directory)
        self.addCleanup(client.wait)
        self.addCleanup(client.kill)
        until("the key is written", lambda: store.ask(slot, "GET", "key") == "value")

    def test_the_python_example_writes_a_key(self):
        self.run_example("python", HERE.parent / "python/external_ip.py", os.environ["PYTHON"])

    def test_the_node_example_writes_a_key(self):
        self.run_example("js", HERE.parent / "node/external-ip.mjs", "node")


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
