"""The closed table of reasons for which a command is refused.

A *final* reason is decided by the store's state and sticks to the idempotency key; a *transient* one
does not, because a corrected request or a later try may well be accepted.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why a command was refused; the value is the contract's problem code."""

    UNKNOWN_SKU = "unknown-sku"
    UNKNOWN_HOLD = "unknown-hold"
    INSUFFICIENT_STOCK = "insufficient-stock"
    PURCHASE_LIMIT_EXCEEDED = "purchase-limit-exceeded"
    SALE_NOT_OPEN = "sale-not-open"
    SALE_CLOSED = "sale-closed"
    HOLD_EXPIRED = "hold-expired"
    HOLD_RELEASED = "hold-released"
    ALREADY_COMMITTED = "already-committed"
    MOVEMENT_REFUSED = "movement-refused"
    POLICY_REFUSED = "policy-refused"
    SKU_ELSEWHERE = "sku-elsewhere"
    """Never shown: the SKU lives in another partition, where the command is sent on to."""
    IDEMPOTENCY_KEY_REUSED = "idempotency-key-reused"
    INVALID_REQUEST = "invalid-request"


TRANSIENT = frozenset({Reason.SKU_ELSEWHERE, Reason.IDEMPOTENCY_KEY_REUSED, Reason.INVALID_REQUEST})
"""Reasons that are not remembered for the key; every other one is final."""
