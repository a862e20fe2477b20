"""What an engine can be told. Times are ms; the second group must agree among all processes of a deployment."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from flashhold.engine.durability import Durability, LedgerGate
from flashhold.engine.journal import Place

Admit = Callable[[Callable[[], Awaitable[Place]]], Awaitable[None]]
"""Given a way to ask where the store stands (raises `Emptied`), returns, or raises what keeps it from being used."""

SHARED_BEFORE = {"partitions": "1"}
"""What a store is taken to say that was made before there was the setting."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The defaults suit one server and one partition."""

    partition: str = "p00"
    partitions: int = 1
    """How many the deployment has. Shared: with another number every SKU would be looked for where it is not."""
    durability: Durability = Durability.DISK
    ledger_gate: LedgerGate | None = None
    """How level `ledger` learns that an entry is in the ledger."""
    admit: Admit | None = None
    """Asked about every connection, the first one too, before anything is decided over it."""
    batch_size_max: int = 256
    """Commands a batch: at this size a batch's fixed cost is an eighth of an alike hold's, and a script runs 1-2 ms."""
    batch_weight_max: int = 2_600
    """Members of commands a batch (about 8, and 3 a line): keeps a batch of full carts below 10 ms."""
    batches_in_flight_max: int = 2
    """Two: while the server decides one, this process encodes the next."""
    waiting_max: int = 10_000
    """Commands that may wait before new ones are turned away: about half a second's work over HTTP."""
    reply_timeout_ms: int = 2_000
    lua_folder: Path | None = None
    """Scripts to use instead of the product's own."""

    hold_ttl_ms: int = 600_000
    hold_ttl_max_ms: int = 86_400_000
    retention_ms: int = 86_400_000
    """How long a key is remembered after its hold has ended."""
    refused_retention_ms: int = 3_600_000

    def shared(self) -> dict[str, str]:
        """The settings that are stored in the partition when it is made, and compared at every start."""
        names = ("hold_ttl_ms", "hold_ttl_max_ms", "retention_ms", "refused_retention_ms", "partitions")
        return {name: str(getattr(self, name)) for name in names}
