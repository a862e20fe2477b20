"""What a partition must hold again after its store was lost, in the words of the domain: no layout of any store."""

from typing import Any, NamedTuple

from flashhold.domain.entries import Entry
from flashhold.domain.model import Hold, HoldState

WholeLine = tuple[str, str, int]
"""sku, pool, quantity: a line of a hold that was granted in full and has not ended by commit or release."""
FullLine = tuple[str, str, int, int, int, int, int | bool]
"""sku, pool, quantity, committed, released, given back by cancel or return, requested or False."""


class RevivedSku(NamedTuple):
    """A SKU's rules as its last policy entry has them (`details`; none yet: {}) and its pools, `default` first.

    `counted`: 0 buyers not counted, 1 since its first limit, -1 since ever."""

    sku: str
    details: dict[str, Any]
    counted: int
    pools: list[str]


class Ending(NamedTuple):
    """The entry that last changed a hold. `ended_ms` 0: it lives."""

    epoch: int
    seq: int
    ended_ms: int
    reference: str
    reason: str
    reacquired: bool


class RevivedHold(NamedTuple):
    """A hold, which is also the memory of the key that made it. `original`: its first lines, where it was amended;
    `asked_ttl_ms`: 0 where none was asked for, or no entry tells."""

    digest: str
    state: HoldState
    fingerprint: str
    buyer: str
    metadata: str
    asked_ttl_ms: int
    lines: tuple[WholeLine, ...] | tuple[FullLine, ...]
    epoch: int
    created_ms: int
    ttl_ms: int
    last: Ending | None
    original: tuple[WholeLine, ...] | tuple[FullLine, ...] | None
    seq: int
    expires_ms: int


class PolicyAnswer(NamedTuple):
    """What a policy's command was answered: the whole policy after it, and whether it made the SKU known."""

    details: dict[str, Any]
    created: bool
    epoch: int
    seq: int


class RevivedAnswer(NamedTuple):
    """What the key of a later verb is remembered to have been answered: a hold as that verb left it, the entry of a
    movement, or a policy. `lines`: the hold's lines as the store kept them then."""

    key: str
    fingerprint: str
    value: Hold | Entry | PolicyAnswer
    lines: tuple[WholeLine, ...] | tuple[FullLine, ...] = ()


class Forgetting(NamedTuple):
    """When the record of a hold (by digest) or of a key may be forgotten, at the earliest."""

    digest: str
    forget_at_ms: int


class RevivedShare(NamedTuple):
    """Units of a SKU that a buyer holds or has bought."""

    sku: str
    buyer: str
    units: int
