"""What clients/redis-rs/src/main.rs does, in Python: see there for arguments, input and output."""

import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "python"))
import external_ip  # noqa: E402
import redis  # noqa: E402


def put_and_get(cluster, key, value):
    cluster.set(key, value)
    read = int(cluster.get(key))
    assert read == value, f"{key} is {read}, not {value}"


def work(cluster, prefix, count):
    done, slowest, error = 0, 0.0, None
    for n in range(count):
        begun = time.monotonic()
        try:
            put_and_get(cluster, f"{prefix}:{n}", n)
            done += 1
        except (redis.RedisError, AssertionError) as failed:
            error = f"{type(failed).__name__}: {failed}"
        slowest = max(slowest, time.monotonic() - begun)
    return {"done": done, "error": error, "slowest": slowest}


def say(line):
    print(json.dumps(line), flush=True)


def connect():
    *where, limit = sys.argv[1:7]
    addresses = external_ip.AddressMap(*where, poll=0.2)
    addresses.ready(float(limit))
    return external_ip.redis_cluster(addresses, socket_connect_timeout=10, socket_timeout=10)


def main():
    begun = time.monotonic()
    try:
        cluster = connect()
    except (TimeoutError, redis.RedisError) as failed:
        return say({"error": str(failed), "after": time.monotonic() - begun})
    say({"ready": True})
    for line in sys.stdin:
        prefix, count = line.split()
        say(work(cluster, prefix, int(count)))


main()
