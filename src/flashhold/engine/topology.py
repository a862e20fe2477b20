"""Which node of a cluster serves a partition: asked anew at every connection, of any node that answers.

All keys of a partition share a hash tag, so they are in one slot, and one primary serves it. A plain connection to that
node then does everything: a client that spreads commands over the cluster would send `WAIT` to other nodes than the
write that it is for. When the slot or the primary moves, the node says so and has not carried out what it was sent.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import redis
from redis.crc import key_slot

from flashhold.domain.errors import StoreUnavailable

ELSEWHERE = ("MOVED", "READONLY", "MASTERDOWN", "LOADING")
"""Errors of a server that is not, or not yet, the one to ask: connecting anew finds the one that is."""
NOT_NOW = ("ASK", "TRYAGAIN", "CLUSTERDOWN")
"""Errors of the right server at the wrong moment. While a slot is half-way a script that names both present and absent
keys can run on neither side (an empty list is an absent key); it can again once the slot has arrived."""

_SENTENCES = {
    "MOVED": "the partition has just moved to another node",
    "READONLY": "the store is not the primary any more",
    "MASTERDOWN": "the partition's primary is away",
    "LOADING": "the store is still reading its data",
    "ASK": "the partition is just being moved to another node",
    "TRYAGAIN": "the partition is just being moved to another node",
    "CLUSTERDOWN": "the cluster has no primary for the partition at the moment",
}

ANSWER_TIMEOUT_S = 0.5
"""For one node's answer to where a partition is; one that hangs must not use up the time of the others."""


class Address(NamedTuple):
    host: str
    port: int


class Login(NamedTuple):
    username: str | None
    password: str | None


def word_of(error: object) -> str:
    """The first word of a server's error, which says what kind it is."""
    return str(error).partition(" ")[0]


def in_words(error: object) -> str | None:
    """What a cluster's refusal means; None for an error of another kind."""
    return _SENTENCES.get(word_of(error))


class Cluster:
    """One partition's place in a cluster. Knows the nodes of the URL and those that the last answer named."""

    def __init__(self, seeds: Iterable[Address], login: Login, partition: str) -> None:
        self._seeds = tuple(dict.fromkeys(seeds))
        self._told: tuple[Address, ...] = ()
        self._turn = 0
        self.login = login
        self.partition = partition
        self.slot = key_slot(partition.encode())

    def nodes(self) -> list[Address]:
        """Whom to ask, in this order. Another begins each time: one that is cut off from the others, or was just
        started, does not know of a failover yet, and whoever asked it alone would be sent back to a dead primary."""
        known = list(dict.fromkeys((*self._told, *self._seeds)))
        self._turn += 1
        at = self._turn % len(known)
        return known[at:] + known[:at]

    def primary(self, slots: object, asked: Address) -> Address | None:
        """The primary of the partition's slot as an answer to `CLUSTER SLOTS` has it, and remember its nodes; None
        where it names none."""
        if not isinstance(slots, list):
            return None
        found = None
        told: list[Address] = []
        for first, last, *nodes in slots:
            addresses = [_address(node, asked) for node in nodes]
            told += [address for address in addresses if address is not None]
            if first <= self.slot <= last:
                found = addresses[0]
        if told:
            self._told = tuple(dict.fromkeys(told))
        return found

    def nobody(self) -> StoreUnavailable:
        """Nobody who answers knows a primary."""
        return StoreUnavailable(f"no node of the cluster that answers knows a primary for partition {self.partition}")

    def all_now(self) -> tuple[Address, ...]:
        """All nodes that serve slots or follow one that does. Blocking. Raises redis.ConnectionError."""
        self.primary_now()
        return self._told

    def primary_now(self) -> Address:
        """Asks the nodes one after the other. Blocking. Raises redis.ConnectionError where nobody knows."""
        for address in self.nodes():
            node: Any = _plain_connection(
                host=address.host, port=address.port, username=self.login.username, password=self.login.password,
                socket_timeout=ANSWER_TIMEOUT_S, socket_connect_timeout=ANSWER_TIMEOUT_S, retry=None,
            )  # fmt: skip
            try:
                node.connect()
                node.send_command("CLUSTER", "SLOTS")
                found = self.primary(node.read_response(disable_decoding=True), address)
            except redis.RedisError:
                continue
            finally:
                node.disconnect()
            if found is not None:
                return found
        raise redis.ConnectionError(str(self.nobody()))


def _address(node: Any, asked: Address) -> Address | None:
    """A node of an answer. One that does not know its own address means the one at which it was asked."""
    host, port = node[0], node[1]
    if not host:
        return Address(asked.host, int(port))
    name = host.decode()
    return None if name == "?" else Address(name, int(port))


_plain_connection: Any = redis.Connection
"""Any, because redis-py leaves most of it untyped."""


class SlotConnection(redis.Connection):
    """A connection of redis-py to the primary of `cluster`'s partition, found anew whenever it connects."""

    def __init__(self, *, cluster: Cluster, **others: Any) -> None:
        self._cluster = cluster
        super().__init__(username=cluster.login.username, password=cluster.login.password, **others)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped

    def _connect(self) -> Any:
        self.host, self.port = self._cluster.primary_now()
        return super()._connect()  # type: ignore[no-untyped-call]  # the same

    def read_response(self, *arguments: Any, **named: Any) -> Any:
        """As redis-py does it; an answer that another node is to be asked ends the connection."""
        try:
            return super().read_response(*arguments, **named)
        except redis.ResponseError as error:
            sentence = _SENTENCES.get(_WORDS.get(type(error), ""))
            if sentence is None:
                raise
            self.disconnect()  # type: ignore[no-untyped-call]  # the same
            raise redis.ConnectionError(sentence) from error


_WORDS: dict[type[Exception], str] = {
    redis.exceptions.MovedError: "MOVED",
    redis.exceptions.AskError: "ASK",
    redis.exceptions.TryAgainError: "TRYAGAIN",
    redis.exceptions.MasterDownError: "MASTERDOWN",
    redis.exceptions.ClusterDownError: "CLUSTERDOWN",
    redis.exceptions.ReadOnlyError: "READONLY",
}
"""redis-py cuts the word off and says it by the type."""
