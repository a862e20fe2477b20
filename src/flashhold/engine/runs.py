"""Batches as the script takes them: alike holds that follow each other go as one command, column by column.

A flash sale is thousands of requests that differ in key and buyer only. What they share is sent, decided and journalled
once; lua/verbs/hold.lua has the layouts.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from flashhold.domain import model
from flashhold.domain.commands import Command, Hold
from flashhold.domain.entries import Entry
from flashhold.domain.idempotency import hold_prefix, key_digests
from flashhold.domain.model import HoldLine, HoldState
from flashhold.domain.outcomes import Applied, Outcome, Refused
from flashhold.engine.codec import AGAIN, HELD_NEW, Moment, Wire, decode, encode, flat_lines

_pack = msgspec.msgpack.Encoder().encode

_new = tuple.__new__
"""Makes a NamedTuple without its Python-level constructor: two of them a hold are a tenth of its cost here."""

_HELD = HoldState.HELD


class Part(NamedTuple):
    """Commands of a batch, from `first` on, that share one command of the script. `digests`: of their keys."""

    first: int
    digests: Sequence[str]


class Encoded(NamedTuple):
    """A batch: the script's second argument, and what its replies answer, one part a reply."""

    data: bytes
    parts: list[Part]


def encode_batch(batch: Sequence[Command]) -> Encoded:
    """Commands, in order. Raises what a command that cannot be encoded raises (UnicodeEncodeError, OverflowError)."""
    wires: list[Wire] = []
    parts: list[Part] = []
    at, end = 0, len(batch)
    while at < end:
        command = batch[at]
        if type(command) is not Hold or command.allow_partial:
            wire = encode(command)
            wires.append(wire)
            parts.append(Part(at, (wire[1],)))
            at += 1
            continue
        keys, buyers = [], []
        _, lines, _, ttl_ms, _, metadata = command
        first = at
        while (
            type(command) is Hold
            and command[1] == lines
            and command[3] == ttl_ms
            and command[5] == metadata
            and not command[4]
        ):
            keys.append(command[0])
            buyers.append(command[2] or "")
            at += 1
            if at == end:
                break
            command = batch[at]
        digests = key_digests(keys)
        columns = (_text(_pack(keys)), _text(_pack(digests)), _text(_pack(buyers)))
        wires.append(("hold", "", ttl_ms or 0, metadata or "", len(keys), *columns, *flat_lines(lines)))
        parts.append(Part(first, digests))
    return Encoded(_pack(wires), parts)


def _text(packed: bytes) -> msgspec.Raw:
    """Bytes as a msgpack text, because the scripts' msgpack knows no `bin` and looks into no text."""
    if len(packed) < 1 << 16:
        return msgspec.Raw(b"\xda" + len(packed).to_bytes(2, "big") + packed)
    return msgspec.Raw(b"\xdb" + len(packed).to_bytes(4, "big") + packed)


def decode_replies(
    batch: Sequence[Command], parts: Sequence[Part], replies: Sequence[Any], moment: Moment
) -> list[Outcome[Any] | None]:
    """The outcome of each command; None where the script could not decide yet and has to be asked again."""
    outcomes: list[Outcome[Any] | None] = []
    for (first, digests), reply in zip(parts, replies, strict=True):
        if reply[0] == HELD_NEW:
            outcomes.extend(_held(batch[first : first + len(digests)], digests, reply, moment))
        else:
            outcomes.append(_decided(batch[first], digests[0], reply, moment))
    return outcomes


def _decided(command: Command, digest: str, reply: Sequence[Any], moment: Moment) -> Outcome[Any] | None:
    return None if reply[0] == AGAIN else decode(command, digest, reply, moment)


def _held(
    holds: Sequence[Any], digests: Sequence[str], reply: Sequence[Any], moment: Moment
) -> list[Outcome[Any] | None]:
    _, expires_ms, places, others = reply
    if len(places) == 3 and not others:
        return _stretch(holds, digests, places[2], expires_ms, moment)
    outcomes: list[Outcome[Any] | None] = [None] * len(holds)
    for first, last, seq in zip(places[::3], places[1::3], places[2::3], strict=True):
        some = slice(first - 1, last)
        outcomes[some] = _stretch(holds[some], digests[some], seq, expires_ms, moment)
    for place, other in zip(others[::2], others[1::2], strict=True):
        outcomes[place - 1] = _decided(holds[place - 1], digests[place - 1], other, moment)
    return outcomes


def _stretch(
    holds: Sequence[Any], digests: Sequence[str], seq: int, expires_ms: int, moment: Moment
) -> list[Outcome[Any] | None]:
    """New holds, one seq after the other."""
    partition, now_ms, epoch = moment[:3]
    _, lines, _, _, _, metadata = holds[0]
    held = tuple([HoldLine(sku, pool, quantity) for sku, quantity, pool in lines])
    prefix = hold_prefix(partition)
    return [
        _new(Applied, (_new(model.Hold, (
            f"{prefix}{digest}{at:x}", _HELD, held, hold[2] or None, now_ms, expires_ms, None, None, None, False,
            metadata or None, partition, epoch, at,
        )), False))
        for at, (hold, digest) in enumerate(zip(holds, digests, strict=True), seq)
    ]  # fmt: skip


def levels_asked(outcome: Outcome[Any] | None, raised: dict[str, str]) -> Iterable[str]:
    """The levels that policies ask for this outcome's SKUs. A refusal does not say which it was about, so it is held to
    all of them; what is not decided yet to none."""
    if outcome is None:
        return ()
    if isinstance(outcome, Refused):
        return raised.values()
    value = outcome.value
    if isinstance(value, model.Hold):
        return [raised[line.sku] for line in value.lines if line.sku in raised]
    if isinstance(value, Entry):
        return [raised[change.sku] for change in value.changes if change.sku in raised]
    return [raised[value.sku]] if getattr(value, "sku", None) in raised else ()
