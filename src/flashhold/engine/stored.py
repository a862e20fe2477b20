"""What the scripts store, read back: records of holds and members of the deadlines' index, for the audit.

Laid out as lua/include/records.lua and deadlines.lua say. The audit reads them itself, because the store's time is
worth more than its own: unpacked by a script, a record took the store three times as long.
"""

from typing import Any, NamedTuple

from flashhold.domain.model import HoldState
from flashhold.engine.codec import unpack

REMEMBERED = 8
"""State of a record that is no hold, but an answer that a key is remembered to have got."""
_HEAD_BYTES = 24
_TAIL_MEMBERS = 7


class Found(NamedTuple):
    """A record. `fault`: what the deadlines lack of a live hold: 'unnamed' (no member of the index names it for some
    pool), 'unwoken' (the sweeper would look at its pool too late), '' (nothing)."""

    state: int
    seq: int
    expires_ms: int
    buyer: str
    lines: tuple[Any, ...]
    metadata: str
    created_ms: int
    epoch: int
    fault: str


class Unreadable(NamedTuple):
    """Bytes that no script wrote."""


Record = Found | Unreadable | None

_ANSWER = Found(REMEMBERED, 0, 0, "", (), "", 0, 0, "")


def record_of(raw: bytes | None, fault: str = "") -> Record:
    """The record that these bytes are; `fault` is what the deadlines lack of it."""
    if raw is None:
        return None
    try:
        return _ANSWER if _is_answer(raw) else _hold_of(raw, fault)
    except (ValueError, TypeError, IndexError):
        return Unreadable()


def due_member(number: int, expires_ms: int, digest: str) -> bytes:
    """What names a hold for the pool of this number, where it is named by itself."""
    return number.to_bytes(4) + expires_ms.to_bytes(6) + digest.encode()


def _is_answer(raw: bytes) -> bool:
    if raw[0] != REMEMBERED:
        return False
    _array(3, raw[1:])  # fingerprint, hold, reply
    return True


def _hold_of(raw: bytes, fault: str) -> Found:
    state, width = HoldState(raw[0]), raw[1]
    created_ms, expires_ms, size, seq, buyer_size = (
        int.from_bytes(raw[at:to]) for at, to in ((2, 8), (8, 14), (14, 16), (16, 22), (22, 24))
    )
    lines_at = _HEAD_BYTES + buyer_size
    flat: list[Any] = unpack(raw[lines_at : lines_at + size])
    metadata, _, _, epoch, *_ = _array(_TAIL_MEMBERS, raw[lines_at + size :])
    lines = tuple(zip(*[iter(flat)] * width, strict=True))
    buyer = raw[_HEAD_BYTES:lines_at].decode()
    return Found(state, seq, expires_ms, buyer, lines, metadata, created_ms, epoch, fault)


def _array(members: int, packed: bytes) -> list[Any]:
    """Members that were packed one behind the other."""
    array: list[Any] = unpack(bytes([0x90 + members]) + packed)
    return array
