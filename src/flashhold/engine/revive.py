"""Puts a partition back into a store, row by row in the words of the domain; lua/restore.lua lays them out.

Blocking: a restore is a service's long work, far from the hot path. Every call may raise `StoreUnavailable`.
"""

import dataclasses
import uuid
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import islice
from typing import Any, NamedTuple

import msgspec
import redis

from flashhold.domain.entries import Entry
from flashhold.domain.errors import FlashHoldError, StoreUnavailable
from flashhold.domain.idempotency import key_digest, parse_hold_id
from flashhold.domain.model import Hold, HoldState, PoolCounters
from flashhold.domain.revival import (
    Forgetting,
    RevivedAnswer,
    RevivedHold,
    RevivedShare,
    RevivedSku,
)
from flashhold.engine.codec import ENTRY, HOLD, POLICY, revived_row
from flashhold.engine.journal import Place
from flashhold.engine.keys import partition_keys
from flashhold.engine.options import EngineOptions
from flashhold.engine.scripts import SCHEMA, load_scripts

CHUNK = 500
"""Rows a call: 5 ms of the server, which in between answers the other processes' questions."""
CHUNKS_TOGETHER = 10
"""Calls that are sent together, and so share an fsync: one each took as long as the calls themselves."""
DROP_MAX = 1000
SILENCE_MS = 3_000
"""A restorer that has given no sign of life for so long may be succeeded."""

_HELD = HoldState.HELD
_pack = msgspec.msgpack.Encoder().encode


class Overtaken(FlashHoldError):
    """Another restorer has taken the partition over, or its store was emptied once more; this one has ended nothing."""


class Closing(StrEnum):
    """What closing a partition came to. `MOVED`: it has another epoch than was thought; `BUSY`: another restores it."""

    CLOSED = "closed"
    MOVED = "moved"
    BUSY = "busy"


class Closed(NamedTuple):
    """`was`: where the partition stood when it was first closed, None where it held no state."""

    closing: Closing
    was: Place | None


class Sealed(NamedTuple):
    """The place of the `restore` entry, which is the first of its epoch."""

    epoch: int
    seq: int
    chain: str
    at_ms: int


def stored_options(client: "redis.Redis", options: EngineOptions) -> EngineOptions:
    """The options with the shared settings that the partition was made with, where the store still has them: a command
    whose own environment says nothing of them must not change them. Raises `StoreUnavailable`."""
    names = list(options.shared())
    try:
        values: Any = client.hmget(partition_keys(options.partition).meta, names)
    except redis.RedisError as error:
        raise StoreUnavailable(f"cannot read the partition's settings: {error}") from error
    kept: dict[str, Any] = {name: int(value) for name, value in zip(names, values, strict=True) if value is not None}
    return dataclasses.replace(options, **kept)


class Reviver:
    """One restorer of one partition: close, clear, fill, seal, open, in this order. Until `open` nothing is decided; a
    restorer that dies in between leaves a closed partition, which the next one begins anew."""

    def __init__(self, client: "redis.Redis", options: EngineOptions, *, silence_ms: int = SILENCE_MS) -> None:
        self._client = client
        self._silence_ms = silence_ms
        self._options = options
        self._keys = partition_keys(options.partition)
        self._script = load_scripts(options.lua_folder).restore
        self._token = uuid.uuid4().hex
        self._numbers: dict[tuple[str, str], int] = {}

    def close(self, expected_epoch: int | None) -> Closed:
        """From now on every batch is refused as recovering. Only where the partition still has the epoch that the
        caller has seen (None: no state), so that one who comes late does not close what another has just rebuilt."""
        settings = [item for pair in self._options.shared().items() for item in pair]
        expected = "" if expected_epoch is None else expected_epoch
        reply = self._call("close", expected, self._silence_ms, SCHEMA, *settings)
        closing = Closing(reply[0].decode())
        if closing != Closing.CLOSED or not reply[1]:
            return Closed(closing, None)
        return Closed(closing, Place(self._options.partition, int(reply[1]), int(reply[2]), reply[3].decode(), 0))

    def clear(self) -> None:
        """Takes everything out but the journal. Raises Overtaken."""
        self._call("clear")

    def drop(self, stream_ids: Sequence[str]) -> None:
        """Gives up batches of the journal. Raises Overtaken."""
        for at in range(0, len(stream_ids), DROP_MAX):
            self._call("drop", *stream_ids[at : at + DROP_MAX])

    def pools(self, pools: Sequence[PoolCounters]) -> None:
        """All of them, before anything else: holds are indexed by their pools' numbers."""
        self._numbers = {(pool.sku, pool.pool): pool.number for pool in pools}
        self._fill("pools", pools)

    def skus(self, skus: Iterable[RevivedSku]) -> None:
        self._fill("skus", map(_sku_row, skus))

    def holds(self, holds: Iterable[RevivedHold]) -> list[int]:
        """In the order in which they were made, over all calls. Returns the seqs of live ones whose key has made one of
        these later, for `seal` to release. Raises KeyError for a live hold of a pool that was not among the pools."""
        return self._fill("holds", map(self._hold_row, holds))

    def wakes(self) -> None:
        """When the first hold of each pool is due; after all holds."""
        self._fill("wakes", self._numbers.values())

    def answers(self, answers: Iterable[RevivedAnswer]) -> None:
        self._fill("answers", map(_answer_row, answers))

    def queue(self, forgettings: Iterable[Forgetting]) -> None:
        """In order of time, over all calls."""
        self._fill("queue", forgettings)

    def shares(self, shares: Iterable[RevivedShare]) -> None:
        self._fill("shares", shares)

    def beat(self) -> None:
        """A sign of life, where nothing else is to be said for long. Raises Overtaken."""
        self._call("beat")

    def seal(
        self,
        epoch: int,
        seq: int,
        chain: str,
        *,
        at_ms: int,
        pools: int,
        stream_ms: int,
        reason: str,
        details: Any,
        twice: Sequence[RevivedHold] = (),
    ) -> Sealed:
        """Writes the `restore` entry under `epoch`, behind the ledger's `seq` and `chain`. Raises Overtaken.

        `at_ms`: the time of the ledger's last entry, before which the partition's clock must not fall; `stream_ms`: the
        same of its stream id. `details`: what the `restore` entry tells. `twice`: live holds to be released."""
        given_back = [(hold.digest, hold.seq, hold.buyer, hold.expires_ms, hold.lines) for hold in twice]
        made = self._call("seal", _pack((epoch, seq, chain, at_ms, pools, stream_ms, reason, details, given_back)))
        return Sealed(epoch, int(made[0]), made[1].decode(), int(made[2]))

    def open(self) -> None:
        """Makes the partition whole. Once the ledger has what `seal` wrote: so no epoch can begin twice, whatever
        becomes of this store. Raises Overtaken."""
        self._call("open")

    def _hold_row(self, hold: RevivedHold) -> tuple[Any, ...]:
        pools: Any = [self._numbers[line[0], line[1]] for line in hold.lines] if hold.state == _HELD else ()
        return (*revived_row(hold), pools)

    def _fill(self, kind: str, rows: Iterable[Any]) -> list[int]:
        told: list[int] = []
        for some in _chunks(_chunks(rows, CHUNK), CHUNKS_TOGETHER):
            for reply in self._run("fill", [(kind, _pack(chunk)) for chunk in some]):
                told += reply
        return told

    def _call(self, step: str, *arguments: str | int | bytes) -> Any:
        return self._run(step, [arguments])[0]

    def _run(self, step: str, calls: Sequence[tuple[str | int | bytes, ...]]) -> list[Any]:
        """One script call for each, sent together behind the script itself, so that the server knows it."""
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                pipeline.script_load(self._script.source.decode())
                for arguments in calls:
                    pipeline.evalsha(self._script.sha, len(self._keys), *self._keys, step, self._token, *arguments)
                return list(pipeline.execute())[1:]
        except redis.exceptions.ResponseError as error:
            if "OVERTAKEN" in str(error):
                raise Overtaken from error
            raise StoreUnavailable(f"the store refused a step of the restore: {error}") from error
        except redis.RedisError as error:
            raise StoreUnavailable(f"the store failed at a step of the restore: {error}") from error


def _chunks(rows: Iterable[Any], most: int) -> Iterator[list[Any]]:
    rows = iter(rows)
    while chunk := list(islice(rows, most)):
        yield chunk


def _sku_row(sku: RevivedSku) -> tuple[Any, ...]:
    said = sku.details.get
    return (
        sku.sku, said("hold_ttl_ms", 0), said("hold_ttl_max_ms", 0), said("max_per_buyer", 0), said("opens_at_ms", 0),
        said("closes_at_ms", 0), said("class", ""), said("partition_key", ""), sku.counted, sku.pools,
        said("durability", ""), said("elsewhere", ""), said("moves", 0),
    )  # fmt: skip


def _answer_row(answer: RevivedAnswer) -> tuple[Any, ...]:
    value = answer.value
    digest = key_digest(answer.key)
    if isinstance(value, Hold):
        parsed = parse_hold_id(value.id)
        assert parsed is not None, "an entry's own hold has an id of ours"
        _, about, made_seq = parsed
        reply: tuple[Any, ...] = (
            HOLD, 0, about, made_seq, value.state, value.created_at_ms, value.expires_at_ms, value.ended_at_ms or 0,
            value.buyer or "", value.reference or "", value.reason or "", value.reacquired, value.metadata or "",
            answer.lines, value.epoch, value.seq,
        )  # fmt: skip
        return digest, answer.fingerprint, about, reply
    if isinstance(value, Entry):
        return (
            digest,
            answer.fingerprint,
            "",
            (ENTRY, 0, value.epoch, value.seq, value.at_ms, _wire(value), value.chain),
        )
    return digest, answer.fingerprint, "", (POLICY, 0, value.created, value.details, value.epoch, value.seq)


def _wire(entry: Entry) -> tuple[Any, ...]:
    """A movement's entry as replies and journal have it: what `codec.decode_entry` reads."""
    return (
        entry.kind, "", 0, entry.idempotency_key or "", entry.fingerprint or "", entry.buyer or "", 0,
        entry.reference or "", entry.reason or "", entry.shortfall or 0, entry.changes, False, entry.hold or "",
    )  # fmt: skip
