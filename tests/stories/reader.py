"""Reads .story files: one line an event, the expectation on the right of `->`. README.md tells the language.

A line that does not parse is an error, and so is an expectation of a kind that the answer does not have: a story
cannot pass by not being understood.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from flashhold.domain import commands
from flashhold.domain.model import DEFAULT_POOL, Line

UNITS_MS = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "days": 86_400_000}


class Passing(NamedTuple):
    """Time goes by."""

    ms: int


class Step(NamedTuple):
    """One line of a story. `command.hold` is the label of a hold, to be replaced by its id when it is played."""

    number: int
    text: str
    command: commands.Command | Passing
    label: str | None
    facts: tuple[str, ...]


class Story(NamedTuple):
    """A title, and what happens."""

    title: str
    steps: tuple[Step, ...]


class Unreadable(ValueError):
    """A line that is not in the language of stories."""


def read_story(path: Path) -> Story:
    """The story in the file. Raises Unreadable with the number of the line."""
    title, steps = "", []
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = raw.strip()
        if line.startswith("#"):
            title = title or line.lstrip("# ")
        elif line:
            event, arrow, expected = line.partition("->")
            command, label = _event(event.strip(), number)
            facts = tuple(fact.strip() for fact in expected.split(",") if fact.strip())
            if not isinstance(command, Passing) and not (arrow and facts):
                raise Unreadable(f"{path.name}:{number}: nothing is expected of: {line}")
            steps.append(Step(number, event.strip(), command, label, facts))
    return Story(title, tuple(steps))


WORD = r"(\S+)"
LINES = r"(.+?)"
TIME = r"(\d+ (?:ms|s|min|h|days))"
WHY = r"(?: because (.+?))?"
RULE = rf"(limit|ttl|longest|opens in|closes in|safety|oversell)(@\S+)? (?:{TIME}|(\d+))"
PATTERNS: dict[str, re.Pattern[str]] = {
    name: re.compile(pattern)
    for name, pattern in {
        "passing": rf"{TIME} (?:pass|passes)",
        "move": rf"(receipt|shipment|return|damage|cancel) (\d+) {WORD}(?: of {WORD})?{WHY}(?: with key {WORD})?",
        "adjustment": rf"adjustment ([+-]\d+) {WORD} because (.+)",
        "transfer": rf"transfer (\d+) {WORD} to {WORD}",
        "hold": rf"{WORD} holds {LINES}(?: for {TIME})?( partly)? as {WORD}(?: with key {WORD})?",
        "commit": rf"commit {WORD}(?: for {WORD})?(?: only {LINES})?( even if expired)?",
        "release": rf"release {WORD}(?: because (.+))?",
        "extend": rf"extend {WORD} by {TIME}",
        "amend": rf"amend {WORD} to {LINES}",
        "policy": rf"policy {WORD}: (.+)",
        "look": rf"look at {WORD}",
        "stock": rf"stock {WORD}",
        "sweep": r"sweep",
    }.items()
}


def _event(text: str, number: int) -> tuple[commands.Command | Passing, str | None]:
    for name, pattern in PATTERNS.items():
        if found := pattern.fullmatch(text):
            return _made(name, found.groups(), f"line {number}")
    raise Unreadable(f"line {number}: no such event: {text}")


Made = tuple[commands.Command | Passing, str | None]
"""What an event is, and the label that a new hold gets."""


def _made(name: str, words: tuple[str | None, ...], own_key: str) -> Made:
    given = [word or "" for word in words]
    if name == "hold":
        who, lines, ttl, partly, label, key = given
        buyer = None if who == "someone" else who
        return commands.Hold(key or label, _lines(lines), buyer, _ms(ttl) if ttl else None, bool(partly)), label
    return MAKERS[name](own_key, *given), None


def _move(own_key: str, *words: str) -> commands.Move:
    kind, units, place, hold, reason, key = words
    sku, pool = _place(place)
    return commands.Move(key or own_key, kind, sku, int(units), pool, reason=reason or None, hold=hold or None)


def _adjustment(own_key: str, units: str, place: str, reason: str) -> commands.Move:
    sku, pool = _place(place)
    return commands.Move(own_key, "adjustment", sku, int(units), pool, reason=reason)


def _transfer(own_key: str, units: str, place: str, to_pool: str) -> commands.Move:
    sku, pool = _place(place)
    return commands.Move(own_key, "transfer", sku, int(units), pool, to_pool=to_pool)


def _commit(_: str, hold: str, reference: str, lines: str, reacquire: str) -> commands.Commit:
    return commands.Commit(hold, reference or None, _lines(lines) if lines else None, bool(reacquire))


MAKERS: dict[str, Callable[..., commands.Command | Passing]] = {
    "passing": lambda _, time: Passing(_ms(time)),
    "move": _move,
    "adjustment": _adjustment,
    "transfer": _transfer,
    "commit": _commit,
    "release": lambda _, hold, reason: commands.Release(hold, reason or None),
    "extend": lambda _, hold, time: commands.Extend(hold, _ms(time)),
    "amend": lambda _, hold, lines: commands.Amend(hold, _lines(lines)),
    "policy": lambda _, sku, rules: commands.SetPolicy(sku, _rules(rules), replace=False),
    "look": lambda _, hold: commands.ReadHold(hold),
    "stock": lambda _, place: commands.ReadStock(*_place(place)),
    "sweep": lambda _: commands.Sweep(),
}


def _ms(text: str) -> int:
    count, unit = text.split()
    return int(count) * UNITS_MS[unit]


def _place(text: str) -> tuple[str, str]:
    sku, _, pool = text.partition("@")
    return sku, pool or DEFAULT_POOL


def _lines(text: str) -> tuple[Line, ...]:
    lines = []
    for part in text.split(" + "):
        units, place = part.split()
        sku, pool = _place(place)
        lines.append(Line(sku, int(units), pool))
    return tuple(lines)


NAMES = {
    "limit": "max_per_buyer",
    "ttl": "hold_ttl_ms",
    "longest": "hold_ttl_max_ms",
    "opens in": "opens_at_ms",
    "closes in": "closes_at_ms",
    "safety": "safety_stock",
    "oversell": "oversell_allowance",
}


def _rules(text: str) -> dict[str, object]:
    """`opens in` and `closes in` are intervals here; the player adds the present."""
    rules: dict[str, object] = {}
    for part in text.split(","):
        found = re.fullmatch(
            rf"(limit|ttl|longest|opens in|closes in|safety|oversell)(@\S+)? (?:{TIME}|(\d+))", part.strip()
        )
        if not found:
            raise Unreadable(f"no such rule: {part}")
        name, pool, time, number = found.groups()
        value = _ms(time) if time else int(number)
        if name in ("safety", "oversell"):
            pools = rules.setdefault("pools", {})
            assert isinstance(pools, dict)
            pools.setdefault((pool or "@" + DEFAULT_POOL)[1:], {})[NAMES[name]] = value
        else:
            rules[NAMES[name]] = value
    return rules
