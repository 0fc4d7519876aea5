"""A client of a Redis Cluster outside of it: writes and reads in a loop until its input ends.

Each line of input is answered by a line of JSON: what was done since the one before. The first line of output is
`{"ready": true}`, or what failed and how long that took.
"""

import json
import os
import pathlib
import sys
import threading
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / "clients/python"))
import external_ip  # noqa: E402
from redis import RedisCluster  # noqa: E402
from redis.backoff import ConstantBackoff  # noqa: E402
from redis.exceptions import RedisError  # noqa: E402
from redis.retry import Retry  # noqa: E402

KEYS = 1000
# One operation is tried for this long, in seconds: longer than a pod takes to be replaced.
PATIENCE, PAUSE = 30, 0.1


def the_map():
    """`nat-map` from a file, or the document of one cluster by HTTPS."""
    where = os.environ["EXTERNAL_IP_MAP"]
    if not where.startswith("https:"):
        return external_ip.AddressMap.file(where)
    url = urllib.parse.urlsplit(where)
    *_, namespace, cluster = url.path.split("/")
    files = os.environ["EXTERNAL_IP_CA_FILE"], os.environ["EXTERNAL_IP_TOKEN_FILE"]
    return external_ip.AddressMap(f"https://{url.netloc}", namespace, cluster, *files)


def connect():
    options = {
        "password": os.environ["PASSWORD"],
        "socket_timeout": 2,
        "socket_connect_timeout": 2,
        "retry": Retry(ConstantBackoff(PAUSE), int(PATIENCE / PAUSE)),
    }
    if "MEMBER" in os.environ:  # members that announce their external addresses: nothing of ours
        return RedisCluster(host=os.environ["MEMBER"], **options)
    addresses = the_map()
    addresses.ready(1.5)
    return external_ip.redis_cluster(addresses, **options)


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
    try:
        client = connect()
        for number in range(KEYS):
            client.set(f"key-{number}", "0")
    except (TimeoutError, RedisError) as error:
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
