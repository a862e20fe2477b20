"""The journal as the write-behind reads it: one stream record a batch, in order, trimmed only behind the ledger."""

import hashlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import redis

from flashhold.domain.entries import Batch, Entry, PoolChange
from flashhold.domain.errors import StoreUnavailable
from flashhold.domain.idempotency import hold_id
from flashhold.engine.codec import decode_entry, unpack
from flashhold.engine.keys import partition_keys

GENESIS_CHAIN = "0" * 40


class Place(NamedTuple):
    """Where a partition stands: the last entry, the head of the chain after it, and the store's clock."""

    partition: str
    epoch: int
    seq: int
    chain: str
    clock_ms: int


def chain_after(previous: str, batch: Batch) -> str:
    """The head that must follow `previous` when this batch is what the store recorded."""
    payload = hashlib.sha1(batch.payload, usedforsecurity=False).hexdigest()
    link = f"{previous}:{batch.epoch}:{batch.first_seq}:{batch.count}:{batch.at_ms}:{payload}"
    return hashlib.sha1(link.encode(), usedforsecurity=False).hexdigest()


def decode_batch(batch: Batch) -> list[Entry]:
    """The batch's entries. Raises msgspec.DecodeError, ValueError or TypeError when the payload is not one."""
    entries: list[Entry] = []
    for row in unpack(batch.payload):
        seq = batch.first_seq + len(entries)
        if len(row) == _MEMBERS_OF_HOLDS:
            entries.extend(_holds(batch, seq, *row))
        elif len(row) == _MEMBERS_OF_EXPIRIES:
            entries.extend(_expiries(batch, seq, *row))
        else:
            entries.append(decode_entry(row, batch.partition, batch.epoch, seq, batch.at_ms, batch.chain))
    if len(entries) != batch.count:
        raise ValueError(f"a batch of {batch.count} entries holds {len(entries)}")
    return entries


_MEMBERS_OF_HOLDS, _MEMBERS_OF_EXPIRIES = 8, 6
"""Of the journal's rows; a row of one entry has more."""


def _holds(
    batch: Batch, seq: int, kind: str, expires_ms: int, ttl_ms: int, metadata: str, flat: list[Any],
    keys: list[str], digests: list[str], buyers: list[str],
) -> Iterator[Entry]:  # fmt: skip
    partition, _, epoch, _, _, at_ms, chain, _ = batch
    changes = tuple([
        PoolChange(flat[at], flat[at + 1], 0, -flat[at + 2], flat[at + 2], 0, 0, 0) for at in range(0, len(flat), 3)
    ])  # fmt: skip
    asked = {"metadata": metadata, "ttl_ms": ttl_ms}
    details = {name: value for name, value in asked.items() if value} or None
    for key, digest, buyer in zip(keys, digests, buyers, strict=True):
        yield tuple.__new__(Entry, (
            partition, epoch, seq, at_ms, kind, hold_id(partition, digest, seq), key, None, buyer or None, expires_ms,
            None, None, None, changes, details, chain,
        ))  # fmt: skip
        seq += 1


def _expiries(
    batch: Batch, seq: int, kind: str, flat: list[Any], digests: list[str], made_seqs: list[int],
    deadlines: list[int], buyers: list[str],
) -> Iterator[Entry]:  # fmt: skip
    partition, _, epoch, _, _, at_ms, chain, _ = batch
    sku, pool, quantity = flat
    changes = (PoolChange(sku, pool, 0, quantity, -quantity, 0, 0, 0),)
    for digest, made_seq, expires_ms, buyer in zip(digests, made_seqs, deadlines, buyers, strict=True):
        yield tuple.__new__(Entry, (
            partition, epoch, seq, at_ms, kind, hold_id(partition, digest, made_seq), None, None, buyer or None,
            expires_ms, None, None, None, changes, None, chain,
        ))  # fmt: skip
        seq += 1


REPLICATED_WITHIN_S = 0.5
"""How long a read waits for a replica to have what it has found; a replica says how far it is at least once a second,
and at once whenever somebody waits for it."""


class Journal:
    """One partition's journal. Blocking; errors of the store come as StoreUnavailable.

    `replicated`: read only what a replica has too. A primary that stood still and was replaced carries out what had
    reached it when it goes on, before it hears of its successor; in the ledger that would be a second history.
    """

    def __init__(self, client: "redis.Redis", partition: str, *, replicated: bool = False) -> None:
        self._client = client
        self._replicated = replicated
        self._partition = partition
        self._keys = partition_keys(partition)

    def read(self, after_stream_id: str, batches_max: int, block_ms: int) -> list[Batch]:
        """The next batches behind a stream id ("0" for the first), waiting up to `block_ms` (0: not at all)."""
        try:
            found = self._client.execute_command(  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
                "XREAD", "COUNT", batches_max, *(("BLOCK", block_ms) if block_ms else ()), "STREAMS",
                self._keys.journal, after_stream_id, NEVER_DECODE=True,
            )  # fmt: skip
            if found and self._replicated and not self._is_replicated():
                # Not an empty list: beside a store that stands further on that would be a gap.
                raise StoreUnavailable("cannot read the journal: no replica has what it holds yet")
        except redis.RedisError as error:
            raise StoreUnavailable(f"cannot read the journal: {error}") from error
        return [self._batch(*record) for record in _records(found)]

    def _is_replicated(self) -> bool:
        """Whether a replica soon has all that this server has written by now."""
        until = time.monotonic() + REPLICATED_WITHIN_S
        written: int | None = None
        while True:
            role: Any = self._client.execute_command("ROLE", NEVER_DECODE=True)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
            if role[0] not in (b"master", "master"):
                return False
            written = int(role[1]) if written is None else written
            if any(int(replica[2]) >= written for replica in role[2]):
                return True
            if time.monotonic() > until:
                return False
            time.sleep(0.005)

    def _batch(self, stream_id: bytes, fields: dict[bytes, bytes] | list[bytes]) -> Batch:
        # redis-py 8 gives the fields of a raw call as a map already, older ones as a flat list.
        named = fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=True))
        return Batch(
            self._partition, stream_id.decode(), int(named[b"epoch"]), int(named[b"seq"]), int(named[b"count"]),
            int(named[b"at"]), named[b"chain"].decode(), named[b"payload"],
        )  # fmt: skip

    def trim(self, before_stream_id: str) -> int:
        """Drops what lies before the stream id; returns how many batches."""
        try:
            return int(self._client.xtrim(self._keys.journal, minid=before_stream_id, approximate=False))
        except redis.RedisError as error:
            raise StoreUnavailable(f"cannot trim the journal: {error}") from error

    def length(self) -> int:
        """Batches in the journal."""
        try:
            return int(self._client.xlen(self._keys.journal))
        except redis.RedisError as error:
            raise StoreUnavailable(f"cannot measure the journal: {error}") from error

    def head(self) -> Place | None:
        """Where the partition stands; None when the store holds no state of it."""
        try:
            epoch, seq, chain, clock = self._client.hmget(self._keys.meta, "epoch", "seq", "chain", "clock")
        except redis.RedisError as error:
            raise StoreUnavailable(f"cannot read the partition's place: {error}") from error
        if epoch is None or seq is None or chain is None or clock is None:
            return None
        return Place(self._partition, int(epoch), int(seq), _text(chain), int(clock))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _records(found: object) -> list[tuple[bytes, list[bytes]]]:
    """The stream's records out of an XREAD reply of protocol 2 (a list) or 3 (a map)."""
    if not found:
        return []
    streams = list(found.values()) if isinstance(found, dict) else [stream[1] for stream in found]  # type: ignore[attr-defined]  # a raw reply has no type
    return [(record[0], record[1]) for record in streams[0]]
