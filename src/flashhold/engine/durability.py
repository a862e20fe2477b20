"""What an acknowledgement promises, and whether the server at hand can keep it."""

from enum import StrEnum

from flashhold.domain.errors import NotDurable


class Durability(StrEnum):
    """`memory`: the script ran. `disk`: fsynced before the reply, so that kill -9 and power loss take nothing."""

    MEMORY = "memory"
    DISK = "disk"


def require(level: Durability, settings: dict[str, str]) -> None:
    """Raises NotDurable unless a server with these settings (`CONFIG GET append*`) keeps the level's promise."""
    if level == Durability.MEMORY:
        return
    if settings.get("appendonly") != "yes":
        raise NotDurable("level disk needs appendonly yes: run CONFIG SET appendonly yes, then restart FlashHold")
    if settings.get("appendfsync") != "always":
        raise NotDurable(
            f"level disk needs appendfsync always, but it is {settings.get('appendfsync')}: acknowledged holds of the "
            "last second or more would be lost with the process"
        )
