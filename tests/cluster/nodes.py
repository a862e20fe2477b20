"""A Redis Cluster of real servers on this machine, and what can happen to one: deaths, promotions, slots that move."""

import random
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.crc import key_slot

from flashhold.embedded import processes
from flashhold.embedded.binaries import RedisBinary
from flashhold.embedded.child import Child
from flashhold.embedded.servers import RedisServer

SHARDS = 3
SLOTS = 16_384
PATIENCE_S = 30.0
JUNK_BYTES, JUNK_TIMES = 1_000_000, 30
BUS_OFFSET = 10_000
"""A node's second port, for the other nodes, is so much above its first."""

_SETTINGS = {
    "cluster-enabled": "yes",
    "cluster-config-file": "nodes.conf",
    # How long a primary may be silent before the others replace it; the promotion itself takes about as long again.
    "cluster-node-timeout": "1500",
    # The loss of one shard must not close the others.
    "cluster-require-full-coverage": "no",
    "repl-diskless-sync-delay": "0",
}


class Node:
    """One server of the cluster, with its process and a client."""

    def __init__(
        self,
        directory: Path,
        port: int,
        binary: RedisBinary,
        settings: dict[str, str],
        log: Path,
        starter: ThreadPoolExecutor,
    ) -> None:
        self.port = port
        self._starter = starter
        server = RedisServer(directory, binary=binary, port=port, settings=settings)
        server.prepare()
        self.child = Child(server, log=log)
        self.client: Any = redis.Redis(host="127.0.0.1", port=port, socket_timeout=5, retry=None, protocol=2)

    @property
    def pid(self) -> int:
        assert self.child.pid is not None, "it runs"
        return self.child.pid

    @property
    def alive(self) -> bool:
        return self.child.pid is not None and self.child.ended() is None

    def ask(self, *words: str | int | bytes) -> Any:
        """The raw reply to a command. Raises redis.RedisError."""
        return self.client.execute_command(*words, NEVER_DECODE=True)

    def cluster(self, *words: str | int) -> Any:
        """The reply to a command of CLUSTER, in text, whatever redis-py makes of it."""
        connection = self.client.connection_pool.get_connection()
        try:
            connection.send_command("CLUSTER", *words)
            reply = connection.read_response()
        finally:
            self.client.connection_pool.release(connection)
        return reply.decode() if isinstance(reply, bytes) else reply

    @property
    def id(self) -> str:
        return str(self.cluster("MYID"))

    def info(self, section: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.info(section)
        return found

    def kill(self) -> None:
        """kill -9."""
        processes.send(self.pid, signal.SIGKILL)
        _until(lambda: self.child.ended() is not None, "a killed node does not end")
        self.child.forget()

    def spawn(self) -> None:
        """Start it on what it has, and do not wait for it."""
        self._starter.submit(self.child.spawn).result()

    def start(self) -> None:
        """The same, and wait until it answers."""
        self._starter.submit(self.child.start, PATIENCE_S).result()

    def signal(self, number: signal.Signals) -> None:
        processes.send(self.pid, number)


class LocalCluster:
    """Three primaries with a replica each; node n + 3 begins as the replica of node n."""

    def __init__(
        self, directory: Path, binary: RedisBinary, settings: dict[str, str] | None = None, logs: Path | None = None
    ) -> None:
        ports = free_ports(2 * SHARDS)
        asked = {**_SETTINGS, **(settings or {})}
        # A child ends with the thread that has started it; this one lives as long as the cluster.
        self._starter = ThreadPoolExecutor(1, "cluster")
        logs = logs or directory
        self.nodes = [
            Node(directory / f"node-{n}", port, binary, asked, logs / f"node-{n}.log", self._starter)
            for n, port in enumerate(ports)
        ]

    @property
    def url(self) -> str:
        """With two nodes of the six: the others are learnt."""
        return url_of(self.nodes[:2])

    def start(self) -> None:
        """Start the nodes and join them; returns when every slot is served and every replica follows."""
        for node in self.nodes:
            node.spawn()
        for number, node in enumerate(self.nodes):
            _until(node.child.what.answers, "a node does not answer")
            node.cluster("SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            self.nodes[0].cluster("MEET", "127.0.0.1", node.port)
        for number, node in enumerate(self.nodes[:SHARDS]):
            node.cluster("ADDSLOTSRANGE", SLOTS * number // SHARDS, SLOTS * (number + 1) // SHARDS - 1)
        _until(lambda: all(len(_lines(node)) == len(self.nodes) for node in self.nodes), "the nodes do not meet")
        for primary, replica in zip(self.nodes[:SHARDS], self.nodes[SHARDS:], strict=True):
            _until(lambda r=replica, p=primary: _knows(r, p.id), "a node does not know another")
            replica.cluster("REPLICATE", primary.id)
        self.until_whole()

    def until_whole(self) -> None:
        """Wait until all nodes agree, every slot is served and every replica has what its primary has."""
        _until(self._is_whole, "the cluster does not become whole")

    def _is_whole(self) -> bool:
        if not all(node.alive for node in self.nodes):
            return False
        try:
            if not all("cluster_state:ok" in node.cluster("INFO") for node in self.nodes):
                return False
            replicas = [node.info("replication") for node in self.nodes]
            owners = {tuple(sorted(self._owners(node).items())) for node in self.nodes}
        except redis.RedisError:
            return False
        following = [one for one in replicas if one["role"] == "slave" and one["master_link_status"] == "up"]
        # A replica that is still being sent its first copy says that its link is up.
        served = [one for one in replicas if one.get("slave0", {}).get("state") == "online"]
        agreed = len(owners) == 1 and "fail" not in "".join(_lines(self.nodes[0]))
        return len(following) == len(served) == SHARDS and agreed

    def _owners(self, node: Node) -> dict[str, str]:
        """Slots by the primary's id, as this node sees it."""
        lines = (line.split() for line in _lines(node))
        return {line[0]: " ".join(line[8:]) for line in lines if "master" in line[2] and len(line) > 8}

    def primary_of(self, partition: str) -> Node:
        """The node that serves the partition, as any living one sees it. Raises LookupError."""
        slot = key_slot(partition.encode())
        for node in self.nodes:
            if not node.alive:
                continue
            try:
                slots = node.cluster("SLOTS")
            except redis.RedisError:
                continue
            for entry in slots if isinstance(slots, list) else ():
                if entry[0] <= slot <= entry[1]:
                    return self.at(int(entry[2][1]))
        raise LookupError(partition)

    def at(self, port: int) -> Node:
        """The node of that port."""
        return next(node for node in self.nodes if node.port == port)

    def replica_of(self, primary: Node) -> Node:
        """Its first replica, as it says itself. Raises LookupError."""
        found = primary.info("replication")
        if "slave0" not in found:
            raise LookupError(primary.port)
        return self.at(int(found["slave0"]["port"]))

    def until_promoted(self, replica: Node) -> float:
        """Wait until it serves as a primary; the instant (`time.monotonic`)."""
        _until(lambda: replica.info("replication")["role"] == "master", "the replica is not promoted")
        return time.monotonic()

    def step_down(self, primary: Node) -> Node:
        """Have its replica take over while both live, as before maintenance; returns the new primary. The servers
        themselves give such an attempt up now and then (Redis 7.0 does right after another failover)."""
        replica = self.replica_of(primary)
        for _ in range(5):
            replica.cluster("FAILOVER")
            if processes.wait_until(lambda: replica.info("replication")["role"] == "master", 7, 0.02):
                return replica
        raise TimeoutError("the replica does not take over")

    def move_slot(self, slot: int, source: Node, target: Node, *, between: Callable[[], None] = lambda: None) -> None:
        """Move one slot with its keys, as `redis-cli --cluster reshard` does; `between`: while it is half-way."""
        target.cluster("SETSLOT", slot, "IMPORTING", source.id)
        source.cluster("SETSLOT", slot, "MIGRATING", target.id)
        between()
        while keys := source.cluster("GETKEYSINSLOT", slot, 100):
            source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 60_000, "KEYS", *keys)
        for node in (target, source):
            node.cluster("SETSLOT", slot, "NODE", target.id)
        for node in self.nodes:
            if node.alive and node not in (source, target):
                try:
                    node.cluster("SETSLOT", slot, "NODE", target.id)
                except redis.ResponseError:
                    continue  # a replica takes no such command; it hears of it

    def restart_all(self) -> None:
        """kill -9 of every node, then start them."""
        for node in self.nodes:
            if node.alive:
                node.kill()
        for node in self.nodes:
            node.spawn()

    def mend(self) -> None:
        """Start what is dead, go on with what stands still, and wait until all is well."""
        for node in self.nodes:
            if node.alive:
                node.signal(signal.SIGCONT)
            else:
                node.start()
        self.until_whole()

    def stop(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            if node.alive:
                node.signal(signal.SIGCONT)
                node.child.ask_to_stop()
        for node in self.nodes:
            node.client.close()
            node.child.stop(10)
        self._starter.shutdown()


def url_of(nodes: Iterable[Node]) -> str:
    """The URL that names these nodes."""
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)


def fall_behind(primary: Node, partition: str) -> None:
    """Megabytes for a replica that stands still, in the partition's slot: more than the sockets' buffers hold, which it
    would read when it goes on, although its primary is dead by then."""
    for _ in range(JUNK_TIMES):
        primary.ask("SET", f"{{{partition}}}:junk", b"x" * JUNK_BYTES)


def take_over(replica: Node) -> None:
    """Have it serve as a primary, whatever it lacks and nobody asked."""
    until = time.monotonic() + PATIENCE_S
    while replica.info("replication")["role"] != "master":
        try:
            replica.cluster("FAILOVER", "TAKEOVER")
        except redis.RedisError:
            if time.monotonic() > until:
                raise
        time.sleep(0.02)


def _lines(node: Node) -> list[str]:
    return str(node.cluster("NODES")).splitlines()


def _knows(node: Node, other: str) -> bool:
    return any(line.startswith(other) and "handshake" not in line for line in _lines(node))


def _until(condition: Callable[[], bool], otherwise: str, patience_s: float = PATIENCE_S) -> None:
    if not processes.wait_until(condition, patience_s, 0.02):
        raise TimeoutError(f"{otherwise} within {patience_s:g} s")


def free_ports(count: int) -> list[int]:
    """So many ports on 127.0.0.1 whose bus ports are free as well, below those that the system gives to clients."""
    found: list[int] = []
    candidates = random.SystemRandom().sample(range(12_000, 22_000), 500)
    for port in candidates:
        if all(_is_free(one) for one in (port, port + BUS_OFFSET)):
            found.append(port)
        if len(found) == count:
            return found
    raise OSError("no free ports for a cluster")


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@contextmanager
def running_cluster(binary: RedisBinary) -> Iterator[LocalCluster]:
    """Three primaries with a replica each, of this kind of server, until the block ends."""
    directory = Path(tempfile.mkdtemp(prefix="fh-cluster-"))
    made = LocalCluster(directory, binary)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(directory, ignore_errors=True)
