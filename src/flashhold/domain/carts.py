"""Carts over several partitions: one hold a partition, and what those holds say of each other.

The first of them, in the first partition, is the cart: its id, its deadline and its end are the cart's, and all that a
client is shown follows from it alone. The others are parts, which end as it has ended. What has to be kept for that is
in the texts that a hold has anyway, metadata, reason and reference, behind a mark that no client's text can have.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from flashhold.domain.entries import Entry
from flashhold.domain.idempotency import CART, PART, hold_id, marked_digest, parse_hold_id
from flashhold.domain.model import Hold, HoldLine, HoldState, Line
from flashhold.domain.reasons import Reason

_MARK = "\x1e"
"""A control character: no client's text has one, and JSON writes it otherwise."""


class Part(NamedTuple):
    """One of the other holds of a cart. `key` makes it, and its id is known before it exists."""

    partition: str
    key: str
    lines: tuple[Line, ...]
    at: tuple[int, ...]
    """The places of its lines in the cart."""

    @property
    def digest(self) -> str:
        return marked_digest(PART, self.key)

    @property
    def id(self) -> str:
        return part_id(self.key)


class Cart(NamedTuple):
    """What the first hold of a cart keeps: every line and its partition, in the order of the request, the metadata
    that the client gave, and the durability that a policy of another partition's SKU asks for, '' for none."""

    lines: tuple[tuple[str, Line], ...]
    metadata: str | None
    durability: str = ""

    def text(self) -> str:
        """The first hold's metadata."""
        rows = [[partition, *line] for partition, line in self.lines]
        return f"{_MARK}{_json([self.durability, rows])}{_MARK}{self.metadata or ''}"

    def takes(self, wanted: Iterable[Line] | None) -> tuple[int, ...] | None:
        """What a commit takes of each line; None where it wants more than there is. As lua/verbs/commit.lua does it."""
        if wanted is None:
            return tuple(line.quantity for _, line in self.lines)
        left: dict[tuple[str, str], int] = defaultdict(int)
        for line in wanted:
            left[line.sku, line.pool] += line.quantity
        takes = []
        for _, line in self.lines:
            take = min(line.quantity, left[line.sku, line.pool])
            left[line.sku, line.pool] -= take
            takes.append(take)
        return None if any(left.values()) else tuple(takes)


def divided(
    lines: Sequence[Line], groups: Mapping[str, Sequence[Line]], metadata: str | None, durability: str = ""
) -> Cart:
    """The cart of these lines. `groups`: which of them are whose partition's."""
    place_of = {(line.sku, line.pool): partition for partition, some in groups.items() for line in some}
    return Cart(tuple((place_of[line.sku, line.pool], line) for line in lines), metadata, durability)


def cart_of(hold: Hold) -> Cart | None:
    """What the first hold of a cart keeps; None for any other hold."""
    metadata = hold.metadata or ""
    return _cart(metadata) if metadata.startswith(_MARK) and metadata.count(_MARK) > 1 else None


def first_digest(key: str) -> str:
    """What stands for the first hold of the cart that the client's key makes."""
    return marked_digest(CART, key)


def parts_of(first: str, cart: Cart) -> list[Part]:
    """The other holds of the cart whose first hold is `first`, in the order in which they are made.

    Their keys are made of its id, not of the client's key: a key that is used again after it was forgotten makes
    another cart, with other parts. No client's key has a space in it.
    """
    here, seq, digest = _parsed(first)
    at: dict[str, list[int]] = {}
    for i, (partition, _) in enumerate(cart.lines):
        at.setdefault(partition, []).append(i)
    return [
        Part(partition, f"part of {here} {seq:016d} {digest} in {partition}", lines_at(cart, at[partition]),
             tuple(at[partition]))
        for partition in sorted(at.keys() - {here})
    ]  # fmt: skip


def parts_key_range(partition: str) -> tuple[str, str]:
    """What the keys of all parts lie between whose cart's first hold is in this partition, in the order of those."""
    return f"part of {partition} ", f"part of {partition} :"


def part_keys(first: str) -> tuple[str, str]:
    """What the keys of the parts of one cart lie between."""
    partition, seq, digest = _parsed(first)
    return f"part of {partition} {seq:016d} {digest} in ", f"part of {partition} {seq:016d} {digest} in ~"


def first_of_key(key: str) -> str:
    """The id of the first hold of the cart that a part with this key belongs to."""
    _, _, partition, seq, digest, *_ = key.split(" ")
    return hold_id(partition, digest, int(seq))


def place_of(first: str) -> str:
    """Where a cart's first hold is."""
    return _parsed(first)[0]


def partition_of_key(key: str) -> str:
    """Where the part with this key is."""
    return key.rsplit(" ", 1)[1]


def part_id(key: str) -> str:
    """What a part goes by before it exists. Seq 0: the hold that this key has made, whenever that was."""
    return hold_id(partition_of_key(key), marked_digest(PART, key), 0)


def part_text(first: str) -> str:
    """A part's metadata."""
    return _MARK + first


def first_of(part: Hold) -> str:
    """The id of the first hold of the cart that a part belongs to."""
    return (part.metadata or "").removeprefix(_MARK)


def lines_at(cart: Cart, places: Iterable[int]) -> tuple[Line, ...]:
    return tuple(cart.lines[i][1] for i in places)


def first_lines(first: str, cart: Cart) -> tuple[int, ...]:
    """The places of the lines of the first hold itself."""
    here = _parsed(first)[0]
    return tuple(i for i, (partition, _) in enumerate(cart.lines) if partition == here)


def refusal_text(reason: Reason, detail: dict[str, Any]) -> str:
    """The reason for which a cart's first hold is released when a part was refused: the answer that its key keeps."""
    return _MARK + _json([reason, detail])


def refusal_of(hold: Hold) -> tuple[Reason, dict[str, Any]] | None:
    """The refusal that a cart's first hold was released for; None where it was not."""
    if not hold.reason or not hold.reason.startswith(_MARK):
        return None
    reason, detail = json.loads(hold.reason.removeprefix(_MARK))
    return Reason(reason), detail


def commit_text(reference: str | None, takes: Sequence[int] | None) -> str | None:
    """The reference under which a cart's first hold is committed. `takes`: of each line of the cart, where not all is
    sold: so the decision itself says what the parts are to do."""
    return reference if takes is None else f"{_MARK}{_json(list(takes))}{_MARK}{reference or ''}"


def commit_of(reference: str | None) -> tuple[str | None, tuple[int, ...] | None]:
    """Reference and takes out of such a text."""
    if not reference or not reference.startswith(_MARK):
        return reference, None
    takes, _, plain = reference.removeprefix(_MARK).partition(_MARK)
    return plain or None, tuple(json.loads(takes))


def takes_of(hold: Hold, cart: Cart) -> tuple[int, ...]:
    """What the commit of a cart's first hold has taken of each line of the cart."""
    return commit_of(hold.reference)[1] or cart.takes(None) or ()


def shown(hold: Hold) -> Hold:
    """The hold as a client sees it: the first hold of a cart as the whole cart, any other as it is."""
    cart = cart_of(hold)
    if cart is None:
        return hold
    lines = [HoldLine(line.sku, line.pool, line.quantity) for _, line in cart.lines]
    if hold.state == HoldState.COMMITTED:
        takes = takes_of(hold, cart)
        pairs = zip(lines, takes, strict=True)
        lines = [line._replace(committed=take, released=line.quantity - take) for line, take in pairs]
    elif hold.state == HoldState.RELEASED:
        lines = [line._replace(released=line.quantity) for line in lines]
    refusal = refusal_of(hold)
    return hold._replace(
        lines=tuple(lines),
        metadata=cart.metadata,
        reference=commit_of(hold.reference)[0],
        reason=refusal[0].value if refusal else hold.reason,
    )


def told(entry: Entry) -> Entry:
    """An entry as a client reads it: what a cart's holds keep for each other as members of its details, and in the
    texts only what came from the client. Any other entry is as it is."""
    details = entry.details or {}
    metadata, reason, reference = details.get("metadata"), entry.reason, entry.reference
    if not any(isinstance(text, str) and text.startswith(_MARK) for text in (metadata, reason, reference)):
        return entry
    details = dict(details)
    if isinstance(metadata, str) and metadata.startswith(_MARK):
        first, more, _ = metadata.removeprefix(_MARK).partition(_MARK)
        if more:
            cart = _cart(metadata)
            details["metadata"] = cart.metadata
            details["cart"] = [{"partition": partition, **line._asdict()} for partition, line in cart.lines]
        else:
            details["metadata"] = None
            details["part_of"] = first
        details = {name: value for name, value in details.items() if value is not None}
    if reason and reason.startswith(_MARK):
        code, refused = json.loads(reason.removeprefix(_MARK))
        reason, details["refused"] = code, refused
    if reference and reference.startswith(_MARK):
        reference, details["takes"] = commit_of(reference)
    return entry._replace(details=details or None, reason=reason, reference=reference)


def _cart(metadata: str) -> Cart:
    _, kept, text = metadata.split(_MARK, 2)
    durability, rows = json.loads(kept)
    lines = tuple((partition, Line(sku, quantity, pool)) for partition, sku, quantity, pool in rows)
    return Cart(lines, text or None, durability)


def _parsed(hold: str) -> tuple[str, int, str]:
    parsed = parse_hold_id(hold)
    if parsed is None:
        raise ValueError(f"no hold has the id {hold!r}")
    partition, digest, seq = parsed
    return partition, seq, digest


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
