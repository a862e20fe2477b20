"""What a page of the ledger looks like: the contract's JSON, and the cursor from one page to the next."""

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from flashhold.domain import carts
from flashhold.domain.entries import Entry
from flashhold.domain.errors import BadCursor
from flashhold.domain.instants import rfc3339, rfc3339_or_none
from flashhold.domain.model import Hold

Positions = dict[str, tuple[int, int]]
"""How far a reader has come in each partition: (epoch, seq). A place for each, because every partition grows at its own
end: a reader that is told to go on where it stopped in one must not miss what the others have got meanwhile."""

_decoder = msgspec.msgpack.Decoder(
    # Anybody can make up a cursor; one that no column can be compared with must not reach the database.
    dict[str, tuple[Annotated[int, Meta(ge=0, lt=2**31)], Annotated[int, Meta(ge=0, le=2**63 - 1)]]]
)


def cursor_of(positions: Mapping[str, tuple[int, int]]) -> str:
    """Positions as the opaque text that goes to the client."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(dict(positions))).decode().rstrip("=")


def positions_of(cursor: str | None) -> Positions:
    """The positions that a client's cursor means; none for the beginning. Raises `BadCursor`."""
    if cursor is None:
        return {}
    try:
        packed = base64.b64decode(cursor.encode() + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return _decoder.decode(packed)
    except (binascii.Error, ValueError) as error:
        raise BadCursor from error


def entry_json(entry: Entry) -> dict[str, Any]:
    """An entry as the contract has it; `details` is there only where the kind has some."""
    entry = carts.told(entry)
    json = {
        "partition": entry.partition,
        "epoch": entry.epoch,
        "seq": entry.seq,
        "at": rfc3339(entry.at_ms),
        "kind": entry.kind,
        "hold": entry.hold,
        "buyer": entry.buyer,
        "reference": entry.reference,
        "reason": entry.reason,
        "idempotency_key": entry.idempotency_key,
        "expires_at": rfc3339_or_none(entry.expires_at_ms),
        "shortfall": entry.shortfall,
        "postings": [posting for change in entry.changes for posting in change.postings()],
        "chain": entry.chain,
    }
    if entry.details is not None:
        json["details"] = entry.details
    return json


def hold_json(hold: Hold) -> dict[str, Any]:
    """A hold as the contract has it. `metadata` is the text that was kept, as raw JSON."""
    hold = carts.shown(hold)
    partial = any(line.requested is not None for line in hold.lines)
    lines = []
    for line in hold.lines:
        shown: dict[str, Any] = {
            "sku": line.sku,
            "pool": line.pool,
            "quantity": line.quantity,
            "committed": line.committed,
            "released": line.released,
        }
        if partial:
            shown["requested"] = line.quantity if line.requested is None else line.requested
        lines.append(shown)
    return {
        "id": hold.id,
        "state": hold.state.label,
        "lines": lines,
        "buyer": hold.buyer,
        "created_at": rfc3339(hold.created_at_ms),
        "expires_at": rfc3339(hold.expires_at_ms),
        "ended_at": rfc3339_or_none(hold.ended_at_ms),
        "reference": hold.reference,
        "reason": hold.reason,
        "reacquired": hold.reacquired,
        "metadata": msgspec.Raw(hold.metadata.encode() if hold.metadata else b"{}"),
        "partition": hold.partition,
        "epoch": hold.epoch,
        "seq": hold.seq,
    }
