"""What is said when something is not done: RFC 9457 problem details, one closed table of codes.

A problem that sticks to an idempotency key must read the same when it is repeated, so nothing here depends on the
time, the process or the connection.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, assert_never

import msgspec

from flashhold.domain import errors
from flashhold.domain.instants import rfc3339
from flashhold.domain.outcomes import Refused
from flashhold.domain.reasons import TRANSIENT, Reason

TYPE_PREFIX = "https://flashhold.dev/problems/"
MEDIA_TYPE = b"application/problem+json"
RETRY_AFTER_SECONDS = 1
"""One second: a batch, a failover's first probe and the readiness check all happen within it."""


class Kind(NamedTuple):
    """What a code always means."""

    status: int
    title: str
    detail: str


KINDS: dict[str, Kind] = {
    "malformed-json": Kind(400, "The body is not well-formed JSON", "The body could not be read as JSON."),
    "malformed-request": Kind(400, "The request is not well-formed HTTP", "The request could not be read as HTTP/1.1."),
    "idempotency-key-missing": Kind(
        400, "An idempotency key is needed",
        "Send the header Idempotency-Key; repeat the request with the same key when in doubt.",
    ),
    "idempotency-key-invalid": Kind(
        400, "The idempotency key is not valid",
        "Send one header Idempotency-Key of 1 to 255 visible ASCII characters.",
    ),
    "unauthenticated": Kind(
        401, "A valid API key is needed",
        "Send the header Authorization: Bearer <key> with a key that is not revoked.",
    ),
    "forbidden": Kind(403, "The API key's scopes do not allow this", "The API key lacks the scope for this."),
    "not-found": Kind(404, "There is nothing here", "No route has this path."),
    "unknown-sku": Kind(404, "The SKU is not known", "The SKU is not known; a receipt or a policy makes it known."),
    "unknown-hold": Kind(404, "The hold is not known", "No hold has this id."),
    "method-not-allowed": Kind(405, "The method is not allowed here", "This path takes other methods; see Allow."),
    "request-timeout": Kind(408, "The request took too long to arrive", "The request did not arrive whole in time."),
    "insufficient-stock": Kind(409, "There is not enough stock", "Less is sellable than was asked for; see lines."),
    "purchase-limit-exceeded": Kind(
        409, "The buyer's limit is exceeded",
        "The buyer would hold and have bought more than the limit.",
    ),
    "sale-not-open": Kind(409, "The sale is not open yet", "The sale of this SKU has not opened yet."),
    "sale-closed": Kind(409, "The sale is closed", "The sale of this SKU has closed."),
    "hold-expired": Kind(409, "The hold has expired", "The hold has expired; its units are sellable again."),
    "hold-released": Kind(409, "The hold was released", "The hold was released; its units are sellable again."),
    "already-committed": Kind(
        409, "The hold is committed already",
        "The hold is committed already, in another way or for good.",
    ),
    "movement-refused": Kind(409, "The stock cannot bear this movement", "The counters cannot bear this movement."),
    "policy-refused": Kind(
        409, "The stock cannot bear this policy",
        "The policy cannot be changed so while stock is on hand, held or committed.",
    ),
    "body-too-large": Kind(413, "The body is too large", "The body is larger than this API takes."),
    "unsupported-media-type": Kind(
        415, "The body's media type is not supported",
        "Send JSON as application/json, UTF-8, without a content encoding.",
    ),
    "idempotency-key-reused": Kind(
        422, "The idempotency key was used for something else",
        "This key came with another payload before; nothing was changed.",
    ),
    "invalid-request": Kind(422, "The request is not valid", "Some fields are not valid; see errors."),
    "overloaded": Kind(
        429, "Too many requests are waiting",
        "Too many requests are waiting; this one was not carried out.",
    ),
    "headers-too-large": Kind(431, "The headers are too large", "The request has too many headers, or too long ones."),
    "internal-error": Kind(
        500, "Something went wrong here",
        "The outcome is unknown: repeat with the same key. The fault was logged.",
    ),
    "store-unavailable": Kind(503, "A store did not answer", "The outcome is unknown: repeat with the same key."),
    "not-durable": Kind(
        503, "The promised durability cannot be met now",
        "The outcome is unknown: repeat with the same key.",
    ),
    "recovering": Kind(
        503, "The stock is being recovered",
        "Nothing is decided until stock and ledger agree; repeat with the same key.",
    ),
}  # fmt: skip
"""Every code that this API can answer; the page of problems in the docs and the OpenAPI document are made from it."""

SPECIFIC_MEMBERS: dict[str, tuple[str, ...]] = {
    "insufficient-stock": ("lines",),
    "purchase-limit-exceeded": ("sku", "limit", "already"),
    "sale-not-open": ("sku", "opens_at"),
    "sale-closed": ("sku", "closes_at"),
    "unknown-sku": ("sku",),
    "invalid-request": ("errors",),
}
"""Members beside the usual ones, where a code has some."""


class Problem(Exception):
    """A request ends with this problem. `headers` go beside it; `replayed` is None where no verb was decided."""

    def __init__(
        self,
        code: str,
        detail: str | None = None,
        *,
        members: dict[str, Any] | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
        replayed: bool | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.kind = KINDS[code]
        self.detail = detail or self.kind.detail
        self.members = members or {}
        self.headers = list(headers)
        self.replayed = replayed
        if self.kind.status in (429, 503):
            self.headers.append((b"retry-after", str(RETRY_AFTER_SECONDS).encode()))

    @property
    def status(self) -> int:
        return self.kind.status

    def body(self) -> bytes:
        """The problem document; the same problem, the same bytes."""
        return msgspec.json.encode(
            {
                "type": TYPE_PREFIX + self.code,
                "title": self.kind.title,
                "status": self.kind.status,
                "detail": self.detail,
                "code": self.code,
                **self.members,
            }
        )


def invalid(field: str, message: str) -> Problem:
    """One field that is not valid."""
    return Problem("invalid-request", members={"errors": [{"field": field, "message": message}]})


def refusal(refused: Refused) -> Problem:
    """What the store decided against, in the contract's words. Final ones say where in the ledger's order they fell."""
    if refused.reason == Reason.SKU_ELSEWHERE:
        return accident(errors.StoreUnavailable())  # it is being moved just now, and was not found in time
    detail = refused.detail
    members: dict[str, Any] = {}
    text: str | None = None
    match refused.reason:
        case Reason.INSUFFICIENT_STOCK:
            members["lines"] = detail["lines"]
        case Reason.PURCHASE_LIMIT_EXCEEDED:
            members = {"sku": detail["sku"], "limit": detail["limit"], "already": detail["already"]}
        case Reason.SALE_NOT_OPEN:
            members = {"sku": detail["sku"], "opens_at": rfc3339(detail["opens_at_ms"])}
        case Reason.SALE_CLOSED:
            members = {"sku": detail["sku"], "closes_at": rfc3339(detail["closes_at_ms"])}
        case Reason.UNKNOWN_SKU:
            members["sku"] = detail["sku"]
        case Reason.INVALID_REQUEST:
            members["errors"] = detail["errors"]
        case Reason.MOVEMENT_REFUSED | Reason.POLICY_REFUSED:
            text = detail.get("message")
        case (
            Reason.UNKNOWN_HOLD
            | Reason.HOLD_EXPIRED
            | Reason.HOLD_RELEASED
            | Reason.ALREADY_COMMITTED
            | Reason.IDEMPOTENCY_KEY_REUSED
        ):
            pass
        case _:
            assert_never(refused.reason)
    if refused.reason not in TRANSIENT:
        members |= {"partition": refused.partition, "epoch": refused.epoch, "seq": refused.seq}
    return Problem(refused.reason.value, text, members=members, replayed=refused.replayed)


ACCIDENTS: dict[type[errors.FlashHoldError], str] = {
    errors.Overloaded: "overloaded",
    errors.NotDurable: "not-durable",
    errors.Recovering: "recovering",
    errors.Emptied: "recovering",
    errors.LedgerConflict: "recovering",
    errors.StoreUnavailable: "store-unavailable",
    errors.LedgerUnavailable: "store-unavailable",
    errors.Misconfigured: "store-unavailable",
}


def accident(error: errors.FlashHoldError) -> Problem:
    """What nobody decided: the caller learns what to do, not what broke."""
    if isinstance(error, errors.BadCursor):
        return invalid("cursor", "is none that this ledger has handed out")
    return Problem(ACCIDENTS.get(type(error), "internal-error"))
