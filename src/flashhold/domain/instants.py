"""Instants: milliseconds since 1970 UTC inside; RFC 3339, UTC, milliseconds to whoever asks."""

from datetime import UTC, datetime
from functools import lru_cache


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def rfc3339(at_ms: int) -> str:
    """`2026-07-01T10:00:00.123Z`. Answers of one second share the prefix, so it is made once, not once an answer."""
    seconds, ms = divmod(at_ms, 1000)
    return f"{_second(seconds)}.{ms:03d}Z"


def rfc3339_or_none(at_ms: int | None) -> str | None:
    """The same, null for what has not happened."""
    return None if at_ms is None else rfc3339(at_ms)


def milliseconds(instant: datetime) -> int:
    """Whole milliseconds since 1970 UTC; `instant` has an offset."""
    since = instant - datetime(1970, 1, 1, tzinfo=UTC)
    return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000
