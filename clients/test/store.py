"""A Redis Cluster whose members nobody here can reach by the addresses they know each other by.

The servers run in a network namespace of their own, at 198.18.0.*. Here, in another one, 203.0.113.* are doors: each leads to one
server's Unix socket, as a load balancer's address leads to one pod. What is sent to 198.18.0.* here is swallowed.
"""

import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

PORT = 6379
SLOTS = 16384


def inside(n):
    return f"198.18.0.{n}"


def outside(n):
    return f"203.0.113.{n}"


class Store:
    """Four servers: 1 to 3 share the slots, 4 has none."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        with open(self.directory / "servers.log", "wb") as log:
            self.servers = subprocess.Popen(
                ["unshare", "--net", "--pid", "--fork", "--kill-child", "sh", "-ec", self._script()],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        self.slots = {1: range(0, 5461), 2: range(5461, 10923), 3: range(10923, SLOTS)}
        self._form()

    def _script(self):
        start = ["ip link set lo up"]
        for n in range(1, 5):
            # the second address is what a replaced pod would have
            start += [f"ip address add {inside(n)}/32 dev lo", f"ip address add {inside(n + 10)}/32 dev lo",
                      f"mkdir {self.directory}/{n}",
                      f"redis-server --port {PORT} --bind {inside(n)} {inside(n + 10)} --dir {self.directory}/{n} --save '' "
                      f"--cluster-enabled yes --cluster-announce-ip {inside(n)} --cluster-node-timeout 2000 "
                      f"--unixsocket {self.door(n)} --protected-mode no "
                      "--cluster-allow-replica-migration no &"]
        return "\n".join(start + ["wait"])

    def door(self, n):
        return str(self.directory / f"{n}.sock")

    def ask(self, n, *words):
        """A command to server n, past all doors; the answer as redis-cli writes it."""
        answer = subprocess.run(["redis-cli", "-s", self.door(n), *map(str, words)], capture_output=True, text=True, timeout=10)
        text = answer.stdout.strip()
        if answer.returncode or text.startswith("ERR"):
            raise RuntimeError(f"{words}: {text or answer.stderr}")
        return text

    def _form(self):
        until("the servers answer", lambda: all(os.path.exists(self.door(n)) and self.ask(n, "PING") == "PONG" for n in range(1, 5)))
        for n, slots in self.slots.items():
            self.ask(n, "CLUSTER", "ADDSLOTSRANGE", slots.start, slots.stop - 1)
            self.ask(n, "CLUSTER", "SET-CONFIG-EPOCH", n)
        for n in range(2, 5):
            self.ask(1, "CLUSTER", "MEET", inside(n), PORT)
        self.wait()

    def wait(self):
        def settled(n):
            info = self.ask(n, "CLUSTER", "INFO")
            return "cluster_state:ok" in info and "cluster_known_nodes:4" in info and "cluster_slots_ok:16384" in info

        until("the cluster has formed", lambda: all(settled(n) for n in range(1, 5)))

    def redirects(self):
        """How many times a server has sent a client elsewhere."""
        stats = [self.ask(n, "INFO", "errorstats") for n in range(1, 5)]
        lines = [line for text in stats for line in text.splitlines() if line.startswith(("errorstat_MOVED", "errorstat_ASK"))]
        return sum(int(line.split("count=")[1]) for line in lines)

    def keys(self, prefix):
        """How many keys of this prefix are on which server."""
        found = {n: self.ask(n, "--scan", "--pattern", f"{prefix}:*").splitlines() for n in range(1, 5)}
        return {n: len(keys) for n, keys in found.items()}

    def move(self, n, address):
        """Server n is known inside by another address from now on."""
        self.ask(n, "CONFIG", "SET", "cluster-announce-ip", address)
        until("the others know", lambda: all(f"{address}:" in self.ask(m, "CLUSTER", "NODES") for m in range(1, 5)))

    def slot(self, key):
        return int(self.ask(1, "CLUSTER", "KEYSLOT", key))

    def begin_move(self, slot, home, there):
        """Until end_move, `home` answers ASK for keys it does not have."""
        self.ask(there, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.ask(home, "CLUSTER", "MYID"))
        self.ask(home, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.ask(there, "CLUSTER", "MYID"))

    def end_move(self, slot, home, there):
        keys = self.ask(home, "CLUSTER", "GETKEYSINSLOT", slot, 1000).splitlines()
        if keys:
            self.ask(home, "MIGRATE", inside(there), PORT, "", 0, 5000, "KEYS", *keys)
        for n in (there, home, *(set(range(1, 5)) - {home, there})):
            self.ask(n, "CLUSTER", "SETSLOT", slot, "NODE", self.ask(there, "CLUSTER", "MYID"))

    def move_back(self, slot, home, there):
        self.begin_move(slot, home, there)
        self.end_move(slot, home, there)
        self.wait()

    def end(self):
        self.servers.send_signal(signal.SIGKILL)
        self.servers.wait()


def swallow():
    """Whoever connects to an internal address from here waits in vain, as outside a Kubernetes cluster."""
    for words in ("link add swallow type veth peer name nobody", "address add 203.0.113.254/32 dev swallow",
                  "link set nobody up", "link set swallow up arp off", "route add 198.18.0.0/24 dev swallow"):
        subprocess.run(["ip", *words.split()], check=True)


class Door:
    """An address here that leads to server n's Unix socket."""

    def __init__(self, store, n, address=None):
        self.path, self.address, self.open = store.door(n), address or outside(n), set()
        subprocess.run(["ip", "address", "replace", f"{self.address}/32", "dev", "lo"], check=True)
        self.listener = socket.create_server((self.address, PORT), backlog=64)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self.path)
            except OSError:
                client.close()
                continue
            threading.Thread(target=self._through, args=(client, server), daemon=True).start()

    def _through(self, client, server):
        self.open.add(client)
        back = threading.Thread(target=_carry, args=(server, client), daemon=True)
        back.start()
        _carry(client, server)
        back.join()
        self.open.discard(client)
        client.close()
        server.close()

    def cut(self):
        """Ends all connections, as the end of a pod does."""
        for client in list(self.open):
            _end(client)

    def close(self):
        """Nobody gets through any more."""
        _end(self.listener)
        self.listener.close()
        self.cut()


def _carry(one, other):
    try:
        while piece := one.recv(65536):
            other.sendall(piece)
    except OSError:
        pass
    _end(one)
    _end(other)


def _end(one):
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def until(what, there, limit=30):
    end, last = time.monotonic() + limit, None
    while time.monotonic() < end:
        try:
            if there():
                return
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            last = error
        time.sleep(0.05)
    raise TimeoutError(f"waited {limit} s for: {what}; {last}")
