"""Plays stories on anything that carries out commands, and holds the answers against what the story expects."""

import re
from collections.abc import Callable
from typing import Any, Protocol

from flashhold.domain import commands
from flashhold.domain.model import Hold, HoldState, Policy, Stock, Swept
from flashhold.domain.outcomes import Applied, Refused
from flashhold.domain.reasons import Reason
from tests.stories.reader import UNITS_MS, Passing, Step, Story, Unreadable


class Stage(Protocol):
    """Where a story is played."""

    async def do(self, command: commands.Command) -> Any:
        """The outcome of the command."""
        ...

    async def pass_time(self, ms: int) -> None:
        """Let the clock be so much later."""
        ...

    async def now_ms(self) -> int:
        """What the clock says."""
        ...


class Unexpected(AssertionError):
    """The story went otherwise."""


async def play(story: Story, stage: Stage) -> None:
    """Play every step. Raises Unexpected at the first that goes otherwise than told."""
    holds: dict[str, str] = {}
    first_answers: dict[str, Any] = {}
    for step in story.steps:
        if isinstance(step.command, Passing):
            await stage.pass_time(step.command.ms)
            continue
        answer = await stage.do(await _settled(step.command, holds, stage))
        if step.label and isinstance(answer, Applied):
            holds[step.label] = answer.value.id
        _check(step, answer)
        if "again" in step.facts and step.text in first_answers:
            first = first_answers[step.text]
            if first._replace(replayed=True) != answer:
                raise Unexpected(f"line {step.number}: {step.text}\n  first {first}\n  again {answer}")
        first_answers.setdefault(step.text, answer)


async def _settled(command: Any, holds: dict[str, str], stage: Stage) -> Any:
    """The command with ids for labels and instants for intervals."""
    if getattr(command, "hold", None) is not None:
        command = command._replace(hold=holds.get(command.hold, "hld_00" + "nobody" * 2 + "xx1"))
    if isinstance(command, commands.SetPolicy):
        now_ms = await stage.now_ms()
        fields = {name: value + now_ms if name.endswith("_at_ms") else value for name, value in command.fields.items()}
        command = command._replace(fields=fields)
    return command


def _check(step: Step, answer: Any) -> None:
    outcome = _outcome_word(answer)
    told = [fact for fact in step.facts if fact in OUTCOMES]
    if told != [outcome]:
        raise Unexpected(f"line {step.number}: {step.text}\n  expected {told}, but: {outcome}\n  {answer}")
    if ("again" in step.facts) != getattr(answer, "replayed", False):
        raise Unexpected(f"line {step.number}: {step.text}\n  replayed: {answer}")
    for fact in step.facts:
        if fact not in OUTCOMES and fact != "again" and not _holds_true(fact, answer):
            raise Unexpected(f"line {step.number}: {step.text}\n  expected {fact}, but:\n  {answer}")


OUTCOMES = frozenset({*(state.label for state in HoldState), *(reason.value for reason in Reason), "done"})


def _outcome_word(answer: Any) -> str:
    match answer:
        case Refused(reason=reason):
            return reason.value
        case Applied(value=Hold() as hold):
            return hold.state.label
        case _:
            return "done"


def _holds_true(fact: str, answer: Any) -> bool:
    for pattern, is_true in FACTS.items():
        if found := re.fullmatch(pattern, fact):
            return is_true(answer, *found.groups())
    raise Unreadable(f"no such expectation: {fact}")


def _sum(answer: Any, sku: str, member: str) -> int:
    assert isinstance(answer.value, Hold)
    return sum(getattr(line, member) or 0 for line in answer.value.lines if line.sku == sku)


def _counter(answer: Any, units: str, name: str) -> bool:
    if isinstance(answer, Refused):
        assert name == "sellable", "a refusal only says what is sellable"
        return int(units) == answer.detail["lines"][0]["sellable"]
    assert isinstance(answer.value, Stock)
    return int(units) == getattr(answer.value, name.replace(" ", "_"))


def _ends_in(answer: Any, count: str, unit: str) -> bool:
    """Up to ten seconds more: a real server's clock goes on while the story is played."""
    lives_ms = answer.value.expires_at_ms - answer.value.created_at_ms
    return 0 <= lives_ms - int(count) * UNITS_MS[unit] < 10_000


FACTS: dict[str, Callable[..., bool]] = {
    r"(\d+) swept": lambda answer, count: isinstance(answer.value, Swept) and answer.value.expired == int(count),
    r"(\d+) of (\d+) (\S+)": lambda answer, got, asked, sku: (
        (_sum(answer, sku, "quantity"), _sum(answer, sku, "requested")) == (int(got), int(asked))
    ),
    r"sold (\d+) (\S+)": lambda answer, units, sku: _sum(answer, sku, "committed") == int(units),
    r"given back (\d+) (\S+)": lambda answer, units, sku: _sum(answer, sku, "released") == int(units),
    r"(-?\d+) (sellable|on hand|held|committed|damaged)": _counter,
    r"(\d+) (\S+)": lambda answer, units, sku: _sum(answer, sku, "quantity") == int(units),
    r"shortfall (\d+)": lambda answer, units: answer.value.shortfall == int(units),
    r"no shortfall": lambda answer: answer.value.shortfall is None,
    r"reacquired": lambda answer: answer.value.reacquired,
    r"lives (\d+) (s|min|h)": _ends_in,
    r"limit (\d+)": lambda answer, units: answer.detail["limit"] == int(units),
    r"already (\d+)": lambda answer, units: answer.detail["already"] == int(units),
    r"short (\S+)": lambda answer, skus: [line["sku"] for line in answer.detail["lines"]] == skus.split("+"),
    r"new": lambda answer: isinstance(answer.value, Policy) and answer.value.created,
}
