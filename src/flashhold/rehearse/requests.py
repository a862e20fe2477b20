"""Every request of a rehearsal as bytes, and every idempotency key, built here and nowhere else.

Keys come from the run's id and the order, part or row, so a run that was cut off can be played again from the start:
what was decided is answered again, what was not is done.
"""

from typing import Any
from urllib.parse import quote

import msgspec

from flashhold.domain.idempotency import key_digest
from flashhold.domain.model import DEFAULT_POOL, Line
from flashhold.rehearse.client import Api
from flashhold.rehearse.plan import Cart, Movement

_KEY_PART_MAX = 100
LEDGER_PAGE = 1000


class Requests:
    """The requests of one run, against one pool."""

    def __init__(self, api: Api, run: str, pool: str) -> None:
        self.api = api
        self.key_prefix = f"rehearse.{run}."
        self._pool: dict[str, Any] = {} if pool == DEFAULT_POOL else {"pool": pool}

    def receipt(self, sku: str, units: int) -> bytes:
        """A part of the opening stock."""
        return self._movement(f"opening.{_key_part(sku)}", "receipt", sku, units, reason="opening stock of a rehearsal")

    def hold(self, cart: Cart, part: int) -> bytes:
        lines = [{"sku": line.sku, "quantity": line.quantity, **self._pool} for line in cart.holds[part]]
        body: dict[str, Any] = {"lines": lines}
        if cart.buyer is not None:
            body["buyer"] = cart.buyer
        return self._post("/v1/holds", body, _cart_key(cart, part, "hold"))

    def commit(self, cart: Cart, part: int, hold: str) -> bytes:
        """A run that is taken up again after its holds ran out still sells what is there: hence `reacquire`."""
        body = {"reference": cart.order, "if_expired": "reacquire"}
        return self._post(f"/v1/holds/{hold}/commit", body, _cart_key(cart, part, "commit"))

    def release(self, cart: Cart, part: int, hold: str) -> bytes:
        return self._post(f"/v1/holds/{hold}/release", {"reason": "cart abandoned"}, _cart_key(cart, part, "release"))

    def shipment(self, cart: Cart, part: int, number: int, line: Line) -> bytes:
        key = f"{_cart_key(cart, part, 'ship')}.{number}"
        return self._movement(key, "shipment", line.sku, line.quantity, reference=cart.order)

    def movement(self, movement: Movement) -> bytes:
        kind, sku, quantity = movement.kind, movement.sku, movement.quantity
        key = f"row.{movement.row}"
        return self._movement(key, kind, sku, quantity, reason=movement.reason, reference=movement.reference)

    def stock(self, sku: str) -> bytes:
        """The strong read of one SKU."""
        query = f"?pool={quote(self._pool['pool'], safe='')}" if self._pool else ""
        return self.api.get(f"/v1/skus/{quote(sku, safe='')}{query}")

    def ledger(self, partition: str, cursor: str | None) -> bytes:
        """One page of a partition's ledger, from `cursor` on."""
        after = f"&cursor={quote(cursor, safe='')}" if cursor else ""
        return self.api.get(f"/v1/ledger?partition={quote(partition, safe='')}&limit={LEDGER_PAGE}{after}")

    def ready(self) -> bytes:
        return self.api.get("/readyz")

    def _movement(
        self, key: str, kind: str, sku: str, quantity: int, *, reason: str | None = None, reference: str | None = None
    ) -> bytes:
        body: dict[str, Any] = {"type": kind, "sku": sku, "quantity": quantity, **self._pool}
        if reason is not None:
            body["reason"] = reason
        if reference is not None:
            body["reference"] = reference
        return self._post("/v1/movements", body, key)

    def _post(self, path: str, body: dict[str, Any], key: str) -> bytes:
        return self.api.post(path, msgspec.json.encode(body), self.key_prefix + key)


def _cart_key(cart: Cart, part: int, verb: str) -> str:
    kind = "abandoned" if cart.abandoned else "order"
    return f"{kind}.{_key_part(cart.order)}.{part}.{verb}"


def _key_part(text: str) -> str:
    """`text` as it may stand in an idempotency key: visible ASCII, and not too long for one."""
    quoted = quote(text, safe="")
    return quoted if len(quoted) <= _KEY_PART_MAX else f"~{key_digest(text)}"
