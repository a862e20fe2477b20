"""What a verb returns: it was applied (perhaps earlier, under the same key), or it was refused for a reason."""

from typing import Any, Generic, NamedTuple, TypeVar

from flashhold.domain.reasons import Reason

T = TypeVar("T")


class Applied(NamedTuple, Generic[T]):
    """The command took effect and `value` is what it left. `replayed`: at an earlier try, not now."""

    value: T
    replayed: bool = False


class Refused(NamedTuple):
    """The command changed nothing. `detail` holds the contract's members for this reason.

    Shapes: `insufficient-stock` → `lines` [{sku, pool, requested, sellable}]; `purchase-limit-exceeded` →
    `sku`, `limit`, `already`; `sale-not-open` → `sku`, `opens_at_ms`; `sale-closed` → `sku`, `closes_at_ms`;
    `unknown-sku` → `sku`; `sku-elsewhere` → `sku`, `partition`, `moves`; `invalid-request` → `errors`
    [{field, message}]; `movement-refused`,
    `policy-refused` → `message`.
    """

    reason: Reason
    detail: dict[str, Any]
    replayed: bool
    partition: str
    epoch: int
    seq: int


Outcome = Applied[T] | Refused
