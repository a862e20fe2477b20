"""Answers that a broken product could give above a correct ledger. Each names how it must be found."""

from collections.abc import Callable
from typing import Any

import msgspec

from tests.faults.books import COMMITTED
from tests.faults.history import Operation
from tests.faults.index import APPLIED, READ, REFUSED, REUSED, UNKNOWN, Call
from tests.faults.spoiling import Corruptions, Spoiler

told = Corruptions()


def _first(s: Spoiler, *verbs: str) -> Callable[[Call], bool]:
    """Calls that took effect by themselves, with a key that no other call has."""
    keys = {entry.idempotency_key for entry in s.entries}
    return lambda c: c.fate == APPLIED and c.verb in verbs and c.replayed is False and c.key in keys and s.alone(c)


# ---- keys


@told("answers-differ")
def a_replay_has_another_body(s: Spoiler) -> None:
    at, _ = s.call(_first(s, "hold"), "a hold")
    s.resend(at, s.end_ns, s.end_ns + 9, replayed=True, body={"buyer": "nobody"})


@told("answers-differ")
def a_replay_has_another_status(s: Spoiler) -> None:
    at, _ = s.call(_first(s, "hold", "move"), "a change")
    s.resend(at, s.end_ns, s.end_ns + 9, replayed=True, status=200)


@told("two-firsts")
def two_answers_are_the_first(s: Spoiler) -> None:
    at, _ = s.call(_first(s, "hold", "move", "commit"), "a change")
    s.resend(at, s.end_ns, s.end_ns + 9)


@told("first-after-replay")
def the_first_answer_comes_after_a_repeated_one(s: Spoiler) -> None:
    at, _ = s.call(_first(s, "hold", "move", "commit"), "a change")
    s.resend(at, s.end_ns, s.end_ns + 9)
    s.answer(at, replayed=True)


@told("replayed-first")
def the_only_answer_is_a_repeated_one(s: Spoiler) -> None:
    at, _ = s.call(_first(s, "hold", "move", "commit"), "a change")
    s.answer(at, replayed=True)


@told("key-reuse-accepted")
def a_key_is_accepted_for_another_payload(s: Spoiler) -> None:
    decided = {c.key: c for c in map(Call, s.operations) if c.fate in (APPLIED, REFUSED)}
    at, call = s.call(lambda c: c.fate == REUSED and c.key in decided, "a reused key")
    first = decided[call.key].answer
    assert first is not None
    s.answer(at, status=first.status, body=first.body)


@told("reused-without-reason")
def a_repeated_call_is_taken_for_a_reuse(s: Spoiler) -> None:
    at, _ = s.call(_first(s, "hold", "move"), "a change")
    s.resend(at, s.end_ns, s.end_ns + 9, status=422, body={"code": "idempotency-key-reused"})


@told("reused-without-reason")
def the_payload_that_came_first_is_taken_for_a_reuse(s: Spoiler) -> None:
    reused = {c.key for c in map(Call, s.operations) if c.fate == REUSED}
    at, _ = s.call(lambda c: c.fate in (APPLIED, REFUSED) and c.key in reused, "a key with two payloads")
    s.resend(at, s.end_ns, s.end_ns + 9, status=422, body={"code": "idempotency-key-reused"})


# ---- what is said of a change


@told("answer-differs")
def an_acknowledgement_without_its_place(s: Spoiler) -> None:
    at, _ = s.call(_first(s, "hold", "commit"), "a change")
    s.answer(at, body={"seq": None})


@told("answer-differs")
def nobody_says_whether_it_is_repeated(s: Spoiler) -> None:
    at, _ = s.call(_first(s, "hold", "commit", "move"), "a change")
    s.answer(at, replayed=None)


@told("acknowledged-lost")
def a_call_that_never_arrived_is_acknowledged(s: Spoiler) -> None:
    keys = {entry.idempotency_key for entry in s.entries}
    at, _ = s.call(lambda c: c.fate == UNKNOWN and c.verb == "hold" and c.key not in keys and s.alone(c), "a lost hold")
    _, like = s.call(_first(s, "hold"), "a hold")
    s.answer(at, status=201, replayed=False, body={**like.body, "id": "hld_p00nowhere"})


@told("acknowledged-elsewhere")
def an_answer_names_another_place(s: Spoiler) -> None:
    at, call = s.call(lambda c: _first(s, "hold", "move")(c) and c.body["seq"] > 9, "a change")
    s.answer(at, body={"seq": call.body["seq"] - 1})


@told("answer-differs")
def an_answer_grants_more(s: Spoiler) -> None:
    at, call = s.call(_first(s, "hold"), "a hold")
    lines = [{**line, "quantity": line["quantity"] + 1} for line in call.body["lines"]]
    s.answer(at, body={"lines": lines})


@told("answer-differs")
def an_answer_promises_more_time(s: Spoiler) -> None:
    at, _ = s.call(_first(s, "hold"), "a hold")
    s.answer(at, body={"expires_at": "2999-01-01T00:00:00.000Z"})


@told("answer-differs")
def a_commit_says_that_it_was_released(s: Spoiler) -> None:
    at, _ = s.call(_first(s, "commit"), "a commit")
    s.answer(at, body={"state": "released"})


@told("answer-differs")
def a_movement_names_other_postings(s: Spoiler) -> None:
    at, call = s.call(_first(s, "move"), "a movement")
    s.answer(at, body={"postings": call.body["postings"][:1]})


@told("refused-yet-applied")
def a_refused_call_took_effect(s: Spoiler) -> None:
    at, _ = s.call(_first(s, "hold"), "a hold")
    s.answer(at, status=409, body={"code": "insufficient-stock", "lines": []})


@told("refused-yet-applied")
def a_call_that_was_turned_away_took_effect(s: Spoiler) -> None:
    at, _ = s.call(_first(s, "hold", "move"), "a change")
    s.answer(at, status=429, replayed=None, body={"code": "overloaded"})


# ---- refusals


@told("refused-without-reason")
def refused_though_there_was_enough(s: Spoiler) -> None:
    """With the true figures: sellable is what the ledger says, and that is enough for what is asked."""
    keys = {entry.idempotency_key for entry in s.entries}
    lost, call = s.call(
        lambda c: c.fate == UNKNOWN and c.verb == "hold" and c.key not in keys and s.alone(c), "a lost hold"
    )
    line = call.request["lines"][0]
    pool = (line["sku"], line.get("pool") or "default")
    partition = next(e.partition for e in s.entries if any(c.sku == pool[0] for c in e.changes))
    places = [
        (e.epoch, e.seq)
        for e in s.entries
        if e.partition == partition and any((c.sku, c.pool) == pool for c in e.changes)
    ]
    enough = [p for p in places if s.folded(partition, p).pool(pool).sellable >= 1]
    place = s.choose(enough, "a place with stock")
    sellable = s.folded(partition, place).pool(pool).sellable
    invoked = msgspec.structs.replace(s.operations[lost].invoked, request={"lines": [{"sku": pool[0], "quantity": 1}]})
    s.operations[lost] = Operation(invoked, s.operations[lost].ended)
    short = [{"sku": pool[0], "pool": pool[1], "requested": 1, "sellable": sellable}]
    body = {"code": "insufficient-stock", "lines": short, "partition": partition, "epoch": place[0], "seq": place[1]}
    s.answer(lost, status=409, replayed=False, body=body)


@told("refused-without-reason")
def refused_with_wrong_figures(s: Spoiler) -> None:
    at, call = s.call(lambda c: c.body.get("code") == "insufficient-stock" and s.alone(c), "a refusal")
    lines = [{**line, "sellable": line["sellable"] - 1} for line in call.body["lines"]]
    s.answer(at, body={"lines": lines})


@told("refused-without-reason")
def a_live_hold_is_called_expired(s: Spoiler) -> None:
    at, _ = s.call(lambda c: c.body.get("code") in ("already-committed", "hold-released") and s.alone(c), "a refusal")
    s.answer(at, body={"code": "hold-expired"})


@told("refused-without-reason")
def a_known_hold_is_called_unknown(s: Spoiler) -> None:
    at, _ = s.call(
        lambda c: c.fate == REFUSED and str(c.body.get("code")).startswith("hold-") and s.alone(c), "a refusal"
    )
    s.answer(at, status=404, body={"code": "unknown-hold"})


@told("refused-without-reason")
def a_limit_that_is_not_reached(s: Spoiler) -> None:
    at, call = s.call(lambda c: c.body.get("code") == "purchase-limit-exceeded" and s.alone(c), "a refusal")
    s.answer(at, body={"already": call.body["already"] - 1})


@told("refused-without-reason")
def a_reason_that_does_not_exist(s: Spoiler) -> None:
    at, _ = s.call(lambda c: c.fate == REFUSED and s.alone(c), "a refusal")
    s.answer(at, body={"code": "no-mood"})


@told("place-missing")
def a_refusal_from_a_future_that_never_came(s: Spoiler) -> None:
    at, call = s.call(lambda c: c.fate == REFUSED and c.place is not None, "a refusal")
    s.answer(at, body={"seq": call.body["seq"] + 1_000_000})


@told("stale-answer")
def a_refusal_from_an_old_state(s: Spoiler) -> None:
    at, call = s.call(lambda c: c.fate == REFUSED and s.alone(c) and c.body.get("seq", 0) > 60, "a late refusal")
    s.answer(at, body={"epoch": 1, "seq": 3})
    assert call.place is not None


# ---- reads


@told("read-differs")
def a_read_shows_other_stock(s: Spoiler) -> None:
    at, call = s.call(lambda c: c.fate == READ and c.verb == "read_stock", "a read")
    s.answer(at, body={"held": call.body["held"] + 1})


@told("read-differs")
def a_read_shows_a_hold_otherwise(s: Spoiler) -> None:
    at, _ = s.call(lambda c: c.fate == READ and c.verb == "read_hold", "a read")
    s.answer(at, body={"buyer": "nobody"})


@told("read-goes-back")
def a_read_goes_back(s: Spoiler) -> None:
    """A second read of the same pool is answered with what the first was, though more had been told since."""
    reads = [(i, c) for i, c in enumerate(map(Call, s.operations)) if c.fate == READ and c.verb == "read_stock"]
    pairs = [(i, old) for i, new in reads for _, old in reads if _older(old, new)]
    at, old = s.choose(pairs, "two reads of one pool")
    s.answer(at, body=old.body)


def _older(old: Call, new: Call) -> bool:
    assert old.place is not None and new.place is not None
    same = old.request == new.request and old.body != new.body
    return same and old.place < new.place and new.invoked_ns - old.answered_ns > 50_000_000


@told("read-goes-back")
def a_hold_that_was_sold_is_read_as_held(s: Spoiler) -> None:
    at, commit = s.call(_first(s, "commit"), "a commit")
    made = next(
        (c for c in map(Call, s.operations) if c.fate == APPLIED and c.verb == "hold" and c.hold == commit.hold), None
    )
    if made is None or made.body.get("state") != "held":
        s.choose([], "a hold whose making was answered")
    assert made is not None
    read: dict[str, Any] = {"hold": commit.hold}
    invoked = msgspec.structs.replace(
        s.operations[at].invoked, verb="read_hold", key=None, request=read, at_ns=s.end_ns
    )
    s.operations.append(Operation(invoked, None))
    s.answer(len(s.operations) - 1, status=200, replayed=None, body=made.body)


# ---- real time


@told("real-time-inversion")
def asked_for_after_later_things_were_told(s: Spoiler) -> None:
    at, _ = s.call(_first(s, "hold", "move", "commit"), "a change")
    invoked, ended = s.operations[at]
    assert ended is not None
    end_ns = s.end_ns
    s.operations[at] = Operation(
        msgspec.structs.replace(invoked, at_ns=end_ns), msgspec.structs.replace(ended, at_ns=end_ns + 1)
    )


@told("real-time-inversion")
def told_before_earlier_things_were_asked_for(s: Spoiler) -> None:
    at, _ = s.call(lambda c: _first(s, "hold", "move")(c) and c.body["seq"] > 60, "a late change")
    invoked, ended = s.operations[at]
    assert ended is not None
    s.operations[at] = Operation(msgspec.structs.replace(invoked, at_ns=1), msgspec.structs.replace(ended, at_ns=2))


# ---- other reasons that were none


@told("refused-without-reason")
def a_movement_that_the_counters_bear(s: Spoiler) -> None:
    at, call = s.call(lambda c: c.verb == "move" and c.fate == REFUSED and _bearable(s, c), "a movement refused")
    request = {**call.request, "quantity": 1}
    invoked, ended = s.operations[at]
    s.operations[at] = Operation(msgspec.structs.replace(invoked, request=request), ended)


def _bearable(s: Spoiler, call: Call) -> bool:
    """One unit of it could have been moved."""
    assert call.partition is not None and call.place is not None
    if call.body.get("code") != "movement-refused" or call.request.get("hold") or call.request["quantity"] < 0:
        return False
    book = s.folded(call.partition, call.place).pool((call.request["sku"], call.request.get("pool") or "default"))
    return call.request["type"] == "shipment" and book.buckets[COMMITTED] > 0


@told("refused-without-reason")
def a_known_sku_is_called_unknown(s: Spoiler) -> None:
    at, call = s.call(lambda c: c.verb == "read_stock" and c.fate == READ, "a read")
    s.answer(at, status=404, body={"code": "unknown-sku", "sku": call.request["sku"]})


@told("refused-without-reason")
def a_sale_that_has_opened_is_called_closed(s: Spoiler) -> None:
    at, call = s.call(lambda c: c.body.get("code") == "insufficient-stock" and s.alone(c), "a refusal")
    code = s.roll.choice(("sale-closed", "sale-not-open"))
    s.answer(at, body={"code": code, "sku": call.body["lines"][0]["sku"]})


@told("refused-without-reason")
def a_limit_that_leaves_room(s: Spoiler) -> None:
    """With the true figures: what is asked for fits."""
    at, call = s.call(
        lambda c: c.verb == "hold" and c.body.get("code") == "purchase-limit-exceeded" and _has_room(c) and s.alone(c),
        "a refusal",
    )
    request = {**call.request, "lines": [{"sku": call.body["sku"], "quantity": 1}]}
    invoked, ended = s.operations[at]
    s.operations[at] = Operation(msgspec.structs.replace(invoked, request=request), ended)


def _has_room(call: Call) -> bool:
    return bool(call.body["already"] < call.body["limit"]) and not call.request.get("allow_partial")


@told("read-differs")
def a_hold_that_was_never_made_is_read(s: Spoiler) -> None:
    at, call = s.call(lambda c: c.verb == "read_hold" and c.fate == READ, "a read")
    invoked, ended = s.operations[at]
    request = {"hold": f"{call.request['hold']}f"}
    s.operations[at] = Operation(msgspec.structs.replace(invoked, request=request), ended)


@told("answer-differs")
def an_answer_is_about_another_hold(s: Spoiler) -> None:
    at, _ = s.call(_first(s, "commit", "release", "extend", "amend"), "a change")
    invoked = s.operations[at].invoked
    made = [c.hold for c in map(Call, s.operations) if c.fate == APPLIED and c.verb == "hold"]
    s.answer(at, body={"id": s.choose([hold for hold in made if hold != invoked.request["hold"]], "another hold")})
