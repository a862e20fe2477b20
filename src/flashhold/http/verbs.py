"""The mutating verbs as one table: where each is asked for, who may, what its body is, which command it means.

Both ways through the door, the thin one and FastAPI's, carry out a row of this table with the same `carry_out`.
"""

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from flashhold.domain.commands import Command, Move, SetPolicy
from flashhold.domain.errors import FlashHoldError, LedgerUnavailable
from flashhold.domain.outcomes import Outcome, Refused
from flashhold.domain.reasons import Reason
from flashhold.http import responses, schemas
from flashhold.http.auth import MAY_HOLD, MAY_MOVE
from flashhold.http.bodies import Body
from flashhold.http.door import Door
from flashhold.http.problems import Problem, accident, refusal
from flashhold.http.requests import RawHeaders, Receive, receive_request
from flashhold.http.responses import FRESH, JSON_TYPE, NO_STORE, REPLAYED, Answer, problem_answer

LEDGER_PAUSES_S = (0.05, 0.1, 0.2, 0.4)
"""A worker that keeps up needs the first of them; one that does not is not waited for."""

HOLDS_PREFIX = "/v1/holds/"
SKUS_PREFIX = "/v1/skus/"


class Verb(NamedTuple):
    """One row. `answer` is given what the command left, the command, and whether that was at an earlier try."""

    name: str
    method: str
    path: str
    needs: int
    body: Body[Any]
    command: Callable[[Any, schemas.Request], Command]
    answer: Callable[[Any, Any, bool], Answer]
    key_required: bool = False
    statuses: tuple[int, ...] = (200,)
    refusals: tuple[str, ...] = ()


def _created_hold(hold: Any, _: Command, replayed: bool) -> Answer:
    location = (b"location", (HOLDS_PREFIX + hold.id).encode())
    headers = [JSON_TYPE, location, NO_STORE, REPLAYED if replayed else FRESH]
    return Answer(201, responses.hold_body(hold), headers)


def _changed_hold(hold: Any, _: Command, replayed: bool) -> Answer:
    return Answer(200, responses.hold_body(hold), [JSON_TYPE, NO_STORE, REPLAYED if replayed else FRESH])


def _recorded_entry(entry: Any, _: Command, replayed: bool) -> Answer:
    return Answer(201, responses.entry_body(entry), [JSON_TYPE, NO_STORE, REPLAYED if replayed else FRESH])


def _set_policy(policy: Any, _: SetPolicy, replayed: bool) -> Answer:
    headers = [JSON_TYPE, NO_STORE, REPLAYED if replayed else FRESH]
    return Answer(201 if policy.created else 200, responses.policy_body(policy), headers)


_ENDED = ("unknown-hold", "hold-expired", "hold-released", "already-committed")
_SHORT = ("unknown-sku", "insufficient-stock", "purchase-limit-exceeded", "sale-not-open", "sale-closed")
_POLICY = Body(schemas.PolicyBody, always_exactly=True)

HOLD = Verb(
    "hold", "POST", "/v1/holds", MAY_HOLD, Body(schemas.HoldBody), schemas.hold_command, _created_hold,
    key_required=True, statuses=(201,), refusals=(*_SHORT, "hold-expired", "hold-released"),
)  # fmt: skip
COMMIT = Verb(
    "commit", "POST", "/v1/holds/{hold}/commit", MAY_HOLD, Body(schemas.CommitBody), schemas.commit_command,
    _changed_hold, refusals=(*_ENDED, "insufficient-stock"),
)  # fmt: skip
RELEASE = Verb(
    "release", "POST", "/v1/holds/{hold}/release", MAY_HOLD, Body(schemas.ReleaseBody), schemas.release_command,
    _changed_hold, refusals=_ENDED,
)  # fmt: skip
EXTEND = Verb(
    "extend", "POST", "/v1/holds/{hold}/extend", MAY_HOLD, Body(schemas.ExtendBody), schemas.extend_command,
    _changed_hold, refusals=_ENDED,
)  # fmt: skip
AMEND = Verb(
    "amend", "POST", "/v1/holds/{hold}/amend", MAY_HOLD, Body(schemas.AmendBody), schemas.amend_command,
    _changed_hold, refusals=(*_ENDED, *_SHORT),
)  # fmt: skip
MOVE = Verb(
    "move", "POST", "/v1/movements", MAY_MOVE, Body(schemas.MovementBody), schemas.movement_command, _recorded_entry,
    key_required=True, statuses=(201,), refusals=("unknown-sku", "unknown-hold", "movement-refused"),
)  # fmt: skip
PUT_POLICY = Verb(
    "put_policy", "PUT", "/v1/skus/{sku}", MAY_MOVE, _POLICY, schemas.put_policy_command, _set_policy,
    statuses=(200, 201), refusals=("policy-refused",),
)  # fmt: skip
PATCH_POLICY = Verb(
    "patch_policy", "PATCH", "/v1/skus/{sku}", MAY_MOVE, _POLICY, schemas.patch_policy_command, _set_policy,
    statuses=(200, 201), refusals=("policy-refused",),
)  # fmt: skip

VERBS = (HOLD, COMMIT, RELEASE, EXTEND, AMEND, MOVE, PUT_POLICY, PATCH_POLICY)


async def carry_out(
    door: Door, verb: Verb, headers: RawHeaders, receive: Receive, subject: Callable[[], str] | str = ""
) -> Answer:
    """Check, decide, answer. `subject`: the hold or SKU of the path, or a check that yields it once its turn comes.

    Raises `ClientGone`; every other end is an answer, refusals and accidents included.
    """
    try:
        received = await receive_request(
            headers, receive, door.keys,
            needs=verb.needs, key_required=verb.key_required, body_bytes_max=door.body_bytes_max,
        )  # fmt: skip
        named = subject if isinstance(subject, str) else subject()
        command = verb.command(verb.body.read(received.body), schemas.Request(received.key, named))
        try:
            return answer_of(verb, command, await door.decider().submit(command))
        except MayBeInLedger as asked:
            return answer_of(verb, asked.without_asking, await decided_again(door, asked))
    except (Problem, FlashHoldError) as problem:
        return problem_of(problem)


class MayBeInLedger(Exception):
    """A movement was refused only because the store has forgotten its hold, and that is not the answer yet."""

    def __init__(self, command: Move, refused: Refused) -> None:
        self.command = command
        self.refused = refused
        self.without_asking = command._replace(ask_ledger=False)


async def decided_again(door: Door, asked: MayBeInLedger) -> Outcome[Any]:
    """The outcome once the ledger has been asked for the hold; it is given a moment to come to where the store stood.
    Raises `LedgerUnavailable`, and what `submit` raises."""
    _, _, _, partition, epoch, seq = asked.refused
    pauses_s = iter(LEDGER_PAUSES_S)
    while True:
        try:
            known = await door.stores.reader.hold_again(asked.command.hold or "", partition, epoch, seq)
            break
        except LedgerUnavailable:
            if (pause_s := next(pauses_s, None)) is None:
                raise
            await asyncio.sleep(pause_s)
    outcome: Outcome[Any] = await door.decider().submit(asked.without_asking._replace(recalled=known))
    return outcome


def answer_of(verb: Verb, command: Command, outcome: Outcome[Any]) -> Answer:
    """The answer to a command that was decided. Raises `MayBeInLedger` where it was not, after all."""
    if isinstance(outcome, Refused):
        forgotten = outcome.reason is Reason.UNKNOWN_HOLD and not outcome.replayed
        if forgotten and isinstance(command, Move) and command.ask_ledger:
            raise MayBeInLedger(command, outcome)
        return problem_answer(refusal(outcome))
    return verb.answer(outcome.value, command, outcome.replayed)


def problem_of(error: Problem | FlashHoldError) -> Answer:
    """The answer to a command that was not decided."""
    # One error can be raised for many requests; each would hang its frames on it.
    error.__traceback__ = None
    return problem_answer(error if isinstance(error, Problem) else accident(error))
