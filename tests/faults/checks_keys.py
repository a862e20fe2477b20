"""One key, one effect, one answer: what all calls with the same idempotency key were told."""

import json
from typing import Any

from tests.faults.index import APPLIED, REFUSED, REUSED, UNKNOWN, Call, Index
from tests.faults.verdict import Verdict

_DEFAULTS: dict[str, Any] = {"pool": "default", "allow_partial": False, "metadata": {}, "if_expired": "reject"}


def check_keys(index: Index, verdict: Verdict, keyed: dict[str, tuple[str, int, int]]) -> None:
    """All keys. `keyed`: the keys that have an entry of their own, and its place."""
    for key, calls in index.by_key.items():
        decided = [call for call in calls if call.fate in (APPLIED, REFUSED) and not call.forgiven]
        decided = _still_remembered(index, decided, verdict)
        if len(calls) > 1:
            several = _one_payload(key, calls, decided, verdict)
            if not several:
                _same_answer(key, decided, verdict)
            _one_first(key, decided, verdict)
        elif calls[0].fate == REUSED:
            verdict.add("reused-without-reason", f"key {key}", "422, and nobody else sent this key")
        _somebody_was_first(key, calls, decided, key in keyed, verdict)


def _still_remembered(index: Index, decided: list[Call], verdict: Verdict) -> list[Call]:
    """Without the refusals of an epoch before the newest: the ledger, from which a new epoch is built, has none. At
    `memory` neither those between which and the last answer something was broken: their memory may be gone."""
    if len(decided) < 2:
        return decided
    newest = max((call.place or (0, 0))[0] for call in decided)
    last_ns = max(call.answered_ns for call in decided)
    kept = [
        call
        for call in decided
        if call.fate == APPLIED
        or (call.place is not None and call.place[0] == newest and not index.forgets(call.answered_ns, last_ns))
    ]
    if len(kept) < len(decided):
        verdict.checked["refusals forgotten"] += len(decided) - len(kept)
    return kept


def meaning(verb: str, request: dict[str, Any]) -> str:
    """Text that is the same for payloads that mean the same: no nulls, no defaults, members in order."""
    return json.dumps([verb, _plain(request)], sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        plain = {name: _plain(member) for name, member in value.items() if member is not None}
        return {name: member for name, member in plain.items() if _DEFAULTS.get(name, ...) != member}
    return [_plain(member) for member in value] if isinstance(value, list) else value


def _one_payload(key: str, calls: list[Call], decided: list[Call], verdict: Verdict) -> bool:
    """A key belongs to the payload that it came with first; any other is told 422. Whether there were several."""
    payloads = {call.id: meaning(call.verb, call.request) for call in calls}
    several = len(set(payloads.values())) > 1
    if several and all(call.verb == "commit" for call in calls) and len({_but_lines(call) for call in calls}) == 1:
        return False  # listing all lines means the same as none, and only the hold says whether these are all
    accepted = {payloads[call.id] for call in decided}
    if len(accepted) > 1:
        detail = f"{len(accepted)} payloads were decided: {sorted(accepted)[:2]}"
        verdict.add("key-reuse-accepted", f"key {key}", detail)
    arrived = {payloads[call.id] for call in calls if call.fate in (APPLIED, REFUSED, UNKNOWN)}
    for call in calls:
        if call.fate == REUSED and (payloads[call.id] in accepted or not arrived - {payloads[call.id]}):
            verdict.add("reused-without-reason", str(call), f"422, and the key came with {sorted(arrived)[:2]}")
    return len(accepted) > 1


def _but_lines(call: Call) -> str:
    return meaning(call.verb, {name: value for name, value in call.request.items() if name != "lines"})


def _same_answer(key: str, decided: list[Call], verdict: Verdict) -> None:
    """The same key and payload, the same status and body."""
    answers = [call.answer for call in decided if call.answer is not None]
    for answer in answers[1:]:
        if (answer.status, answer.body) != (answers[0].status, answers[0].body):
            first = f"{answers[0].status} {answers[0].body}"
            verdict.add("answers-differ", f"key {key}", f"{first}, then {answer.status} {answer.body}")
            return


def _one_first(key: str, decided: list[Call], verdict: Verdict) -> None:
    """One answer at most is the first, and none that was sent after a repeated one had come."""
    firsts = [call for call in decided if call.replayed is False]
    if len(firsts) > 1:
        verdict.add(
            "two-firsts", f"key {key}", f"{firsts[0]} and {firsts[1]} were both told Idempotency-Replayed: false"
        )
    repeated_ns = min((call.answered_ns for call in decided if call.replayed is True), default=None)
    if firsts and repeated_ns is not None and firsts[-1].invoked_ns > repeated_ns:
        verdict.add("first-after-replay", f"key {key}", f"{firsts[-1]} was sent after a repeated answer had come")


def _somebody_was_first(key: str, calls: list[Call], decided: list[Call], has_entry: bool, verdict: Verdict) -> None:
    """A repeated answer repeats something: a first one, or one that may have been lost on its way."""
    if not decided or len(decided) < len([call for call in calls if call.fate != REUSED]):
        return  # some of them may have been the first
    # A commit or release that a hold had behind it already is repeated under any key, and has no entry of its own.
    may_repeat_another = not has_entry and decided[0].verb in ("commit", "release")
    if not may_repeat_another and all(call.replayed is True for call in decided):
        verdict.add(
            "replayed-first", f"key {key}", f"{decided[0]} was told that it repeats, but nothing came before it"
        )
