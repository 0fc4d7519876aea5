"""Follows the map of External IP Controller, and a Redis Cluster by it. Python 3.10 or newer, no packages but redis."""

import http.client
import json
import random
import ssl
import threading
import time
import urllib.parse

# Nobody listens there: a member that is not in the map is refused at once. Its internal address may be anybody's outside.
NOWHERE = ("127.0.0.1", 1)


class AddressMap:
    """Called with an internal (host, port), answers the external one, from memory.

    A thread follows the map; while the controller is away, the last good one stays.
    """

    def __init__(self, url, namespace, cluster, ca_file, token_file=None, wait=25, poll=5):
        """url: the listener's, https://HOST:PORT. The files are read again for each question. wait, poll: seconds the
        server may hold a question, and between two questions where it does not."""
        self._begin(_Https(url, namespace, cluster, ca_file, token_file, wait), poll)

    @classmethod
    def file(cls, path, poll=1):
        """By nat-map.json of the ConfigMap CLUSTER-external-ips, where it is mounted; read again every `poll` seconds."""
        following = cls.__new__(cls)
        following._begin(_File(path), poll)
        return following

    def _begin(self, source, poll):
        self._source, self._poll = source, poll
        self._map, self._ready = {}, threading.Event()
        self.problem = None
        threading.Thread(target=self._follow, name="external-ip-map", daemon=True).start()

    def __call__(self, address):
        return self._map.get(address, NOWHERE)

    def ready(self, timeout=10):
        """Waits for the first map. TimeoutError says why there is none."""
        if not self._ready.wait(timeout):
            raise TimeoutError(f"no map in {timeout} s: {self.problem}")

    def members(self, port):
        """External (host, port) of all members that have this internal port."""
        return sorted({outside for (_, inside_port), outside in self._map.items() if inside_port == port})

    def _follow(self):
        failures = 0
        while True:
            asked = time.monotonic()
            try:
                new = self._source.read()
                if new is not None:
                    self._map = new
                    self._ready.set()
                self.problem, failures = None, 0
                held = time.monotonic() - asked >= 1
                pause = 0.1 if new else 0 if held else self._poll
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.problem, failures = f"{type(error).__name__}: {error}", failures + 1
                pause = min(0.2 * 2 ** min(failures, 7), 15)
            time.sleep(pause * random.uniform(0.75, 1.25))


class _File:
    def __init__(self, path):
        self._path, self._last = path, None

    def read(self):
        """The map, or None where it is the one read last."""
        with open(self._path, encoding="utf-8") as file:
            text = file.read()
        if text == self._last:
            return None
        new = parse(text)
        self._last = text
        return new


class _Https:
    def __init__(self, url, namespace, cluster, ca_file, token_file, wait):
        self._url = urllib.parse.urlsplit(url)
        if self._url.scheme != "https" or not self._url.hostname:
            raise ValueError(f"{url}: give the listener's address, for example https://203.0.113.9:8888")
        self._path = f"{self._url.path.rstrip('/')}/v1/mapping/{namespace}/{cluster}?format=nat-map&wait={wait}"
        self._ca_file, self._token_file, self._wait = ca_file, token_file, wait
        self._known = {}  # the last map's marks: sent back, so that no replica answers with an older map

    def read(self):
        """The map, or None where it is the one read last."""
        context = ssl.create_default_context(cafile=self._ca_file)
        connection = http.client.HTTPSConnection(
            self._url.hostname, self._url.port or 443, timeout=self._wait + 10, context=context
        )
        try:
            connection.request("GET", self._path, headers=self._headers())
            answer = connection.getresponse()
            return self._hear(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def _headers(self):
        if not self._token_file:
            return self._known
        with open(self._token_file, encoding="ascii") as file:
            return {**self._known, "Authorization": f"Bearer {file.read().strip()}"}

    def _hear(self, status, headers, body):
        # a cluster that is gone has no addresses; the position says that it was the map which was asked
        gone = status == 404 and "Map-Position" in headers and b"NoSuchCluster" in body
        if status != 304 and status != 200 and not gone:
            if b"InvalidPosition" in body:
                self._known = {}  # of another version: begin anew
            raise OSError(f"the server answers {status}: {body[:200].decode(errors='replace')}")
        new = None if status == 304 else {} if gone else parse(body)
        kept = {"If-None-Match": self._known.get("If-None-Match") if status == 304 else headers.get("ETag"),
                "Map-Position": headers.get("Map-Position")}
        self._known = {name: value for name, value in kept.items() if value}
        return new


def parse(nat_map):
    """Internal -> external (host, port). ValueError where it is no nat-map."""
    try:
        pairs = json.loads(nat_map).items()
        return {split(inside): (outside["host"], outside["port"]) for inside, outside in pairs}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not a nat-map: {error!r}") from error


def split(address):
    """The port follows the last colon: IPv6 addresses have some of their own."""
    host, _, port = address.rpartition(":")
    return host, int(port)


def redis_cluster(addresses, port=6379, **options):
    """A redis.RedisCluster that reaches its members by the map, begun with those that are in it."""
    import redis

    startup = [redis.cluster.ClusterNode(*member) for member in addresses.members(port)]
    if not startup:
        raise redis.ConnectionError("the map has no members")
    cluster = redis.RedisCluster(startup_nodes=startup, address_remap=addresses, **options)
    _map_redirects(cluster.nodes_manager, addresses)
    return cluster


def _map_redirects(nodes, addresses):
    """redis-py applies address_remap to the table of slots only; MOVED and ASK look members up by their internal address."""
    from redis.cluster import PRIMARY, ClusterNode

    find = nodes.get_node

    def get_node(host=None, port=None, node_name=None):
        found = find(host, port, node_name)
        if found or not (host or node_name):
            return found
        host, port = addresses(split(node_name) if node_name else (host, int(port)))
        # one that holds no slot yet is in no table
        return find(host, port) or nodes.nodes_cache.setdefault(f"{host}:{port}", ClusterNode(host, port, PRIMARY))

    nodes.get_node = get_node
