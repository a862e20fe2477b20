"""What an acknowledgement promises, and whether the stores at hand can keep it."""

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any

from flashhold.domain.errors import NotDurable

LedgerGate = Callable[[str, int, int], Awaitable[None]]
"""gate(partition, epoch, seq): returns once the ledger has that entry. Raises NotDurable where it cannot be told."""


class Durability(StrEnum):
    """`memory`: the script ran. `disk`: fsynced before the reply, so that kill -9 and power loss take nothing.
    `replica`: a replica has it as well, so that the loss of one node with its disk takes nothing. `ledger`: it is in
    Postgres, so that the loss of all of Redis takes nothing."""

    MEMORY = "memory"
    DISK = "disk"
    REPLICA = "replica"
    LEDGER = "ledger"

    @property
    def rank(self) -> int:
        """The higher, the more an acknowledgement survives."""
        return _RANKS[self]


_RANKS = {level: rank for rank, level in enumerate(Durability)}


def require(level: Durability, settings: dict[str, str]) -> None:
    """Raises NotDurable unless a server with these settings (`CONFIG GET append*`) can keep its part of the promise.

    Level `ledger` asks nothing of Redis' disk: what Redis loses was not acknowledged, or is in Postgres.
    """
    if level not in (Durability.DISK, Durability.REPLICA):
        return
    if settings.get("appendonly") != "yes":
        raise NotDurable(f"level {level} needs appendonly yes: run CONFIG SET appendonly yes, then restart FlashHold")
    if not fsyncs(settings):
        raise NotDurable(
            f"level {level} needs appendfsync always, but it is {settings.get('appendfsync')}: acknowledged holds of "
            "the last second or more would be lost with the process"
        )


def fsyncs(settings: dict[str, str]) -> bool:
    """Whether a server with these settings fsyncs before it answers."""
    return settings.get("appendonly") == "yes" and settings.get("appendfsync") == "always"


def on_disk(reply: Any) -> None:
    """Raises NotDurable unless the reply to `WAITAOF` says that the server's disk has what this connection wrote."""
    if not isinstance(reply, list) or reply[0] < 1:
        raise NotDurable(
            "the store cannot say that the write is on its disk; whether the command took effect is unknown"
        )


def replicated(replicas: Any) -> None:
    """Raises NotDurable unless the reply to `WAIT` says that one replica has what this connection wrote."""
    if not isinstance(replicas, int) or replicas < 1:
        raise NotDurable("no replica has confirmed the write in time; whether the command took effect is unknown")


async def in_ledger(gate: LedgerGate | None, partition: str, epoch: int, seq: int) -> None:
    """Returns once the ledger has the place. Raises NotDurable where nobody can tell."""
    if gate is None:
        raise NotDurable("level ledger needs an engine that was told how to ask the ledger")
    await gate(partition, epoch, seq)
