"""What one HTTP process holds while it runs. Routes reach everything through it; it decides nothing."""

from typing import TYPE_CHECKING

from flashhold.http.auth import KeyTable
from flashhold.http.availability import Projection
from flashhold.telemetry import HttpMetrics

if TYPE_CHECKING:
    from flashhold.engine.engine import Engine
    from flashhold.engine.partitions import Partitions
    from flashhold.wiring import Stores


class Door:
    """The stores, the keys, the projection and the meters of this process, and how much a body may hold."""

    def __init__(
        self, stores: "Stores", keys: KeyTable, projection: Projection, metrics: HttpMetrics, body_bytes_max: int
    ) -> None:
        self.stores = stores
        self.keys = keys
        self.projection = projection
        self.metrics = metrics
        self.body_bytes_max = body_bytes_max

    def decider(self) -> "Engine | Partitions":
        """What takes commands, if it may decide now. Raises `Recovering` or `StoreUnavailable` otherwise."""
        return self.stores.decider()
