"""A client of a Redis Cluster outside of it: writes and reads in a loop until its input ends.

Each line of input is answered by a line of JSON: what was done since the one before. The first line of output is
`{"ready": true}`, or what failed and how long that took.
"""

import json
import os
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request

from redis.backoff import ConstantBackoff
from redis.cluster import PRIMARY, ClusterNode, RedisCluster
from redis.exceptions import ConnectionError, RedisError
from redis.retry import Retry

KEYS = 1000
# One operation is tried for this long, in seconds: longer than a pod takes to be replaced.
PATIENCE, PAUSE = 30, 0.1


class Map:
    """The external address of each member: `nat-map` from a file, or the document of one cluster by HTTPS."""

    def __init__(self, where, ca, token):
        self.where, self.token = where, token
        self.context = ssl.create_default_context(cafile=ca) if where.startswith("https:") else None
        self.addresses = self.read()
        threading.Thread(target=self.follow, daemon=True).start()

    def read(self):
        if self.context is None:
            with open(self.where) as file:
                return {key: (at["host"], at["port"]) for key, at in json.load(file).items()}
        with open(self.token) as file:
            token = file.read().strip()
        request = urllib.request.Request(self.where, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=5, context=self.context) as answer:
            document = json.load(answer)
        return {
            f"{entry['internal']['ips'][0]}:{port['internal']}": (entry["external"]["ips"][0], port["external"])
            for entry in document["entries"]
            if entry["state"] == "Routed"
            for port in entry["ports"]
        }

    def follow(self):
        while True:
            time.sleep(0.2)
            try:
                self.addresses = self.read()
            except (OSError, ValueError, urllib.error.URLError):
                pass  # the last good one stays

    def external(self, address):
        """For `address_remap`: raises for an address that nobody outside can reach, instead of waiting for it."""
        addresses = self.addresses
        if address in addresses.values():
            return address
        try:
            return addresses[f"{address[0]}:{address[1]}"]
        except KeyError:
            raise ConnectionError(f"{address[0]}:{address[1]} has no external address in the map") from None


def follow_redirects(client, external):
    """redis-py maps the slots table only: here also the addresses in MOVED and ASK. One who holds no slot yet is in no table."""
    manager = client.nodes_manager
    known = manager.get_node

    def get_node(host=None, port=None, node_name=None):
        if node_name:
            host, _, port = node_name.rpartition(":")
        host, port = external((host, int(port)))
        return known(host, port) or manager.nodes_cache.setdefault(f"{host}:{port}", ClusterNode(host, port, PRIMARY))

    manager.get_node = get_node


class Load:
    """Writes and reads one key after the other and compares."""

    def __init__(self, client):
        self.client, self.lock = client, threading.Lock()
        self.number, self.stopped = 0, False
        self.begin()

    def begin(self):
        self.operations, self.failed, self.wrong, self.slowest = 0, [], 0, 0.0

    def run(self):
        while not self.stopped:
            self.number += 1
            key, value = f"key-{self.number % KEYS}", str(self.number)
            self.timed(lambda: self.client.set(key, value))
            found = self.timed(lambda: self.client.get(key))
            if found is not None and found != value.encode():
                self.wrong += 1

    def timed(self, operation):
        begun, answer, failure = time.monotonic(), None, None
        try:
            answer = operation()
        except RedisError as error:
            failure = f"{type(error).__name__}: {error}"
        with self.lock:
            self.operations += 1
            self.slowest = max(self.slowest, time.monotonic() - begun)
            if failure:
                self.failed.append(failure)
        return answer

    def report(self):
        with self.lock:
            done = {
                "operations": self.operations,
                "failed": self.failed[:5],
                "wrong": self.wrong,
                "slowest_ms": round(self.slowest * 1000),
            }
            self.begin()
        return done


def say(line):
    print(json.dumps(line), flush=True)


def main():
    begun = time.monotonic()
    where = Map(os.environ["EXTERNAL_IP_MAP"], os.environ.get("EXTERNAL_IP_CA_FILE"), os.environ.get("EXTERNAL_IP_TOKEN_FILE"))
    host, port = os.environ["STORE"].rsplit(":", 1)
    try:
        client = RedisCluster(
            startup_nodes=[ClusterNode(host, int(port))],
            password=os.environ["PASSWORD"],
            address_remap=where.external,
            socket_timeout=2,
            socket_connect_timeout=2,
            retry=Retry(ConstantBackoff(PAUSE), int(PATIENCE / PAUSE)),
        )
        follow_redirects(client, where.external)
        for number in range(KEYS):
            client.set(f"key-{number}", "0")
    except RedisError as error:
        say({"error": f"{type(error).__name__}: {error}", "after_ms": round((time.monotonic() - begun) * 1000)})
        return
    load = Load(client)
    worker = threading.Thread(target=load.run)
    worker.start()
    say({"ready": True})
    for _ in sys.stdin:
        say(load.report())
    load.stopped = True
    worker.join()


if __name__ == "__main__":
    main()
