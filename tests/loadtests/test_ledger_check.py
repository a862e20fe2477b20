"""The judge of a drop finds each way in which a ledger and its buyers can disagree."""

from typing import Any

from loadtests.ledger_check import compare, most_promised
from loadtests.tally import Answer


def entry(seq: int, kind: str, key: str | None, hold: str | None, **postings: int) -> dict[str, Any]:
    """A ledger entry as the API tells it, with the postings of one pool."""
    told = [{"sku": "s", "pool": "default", "bucket": bucket, "quantity": n} for bucket, n in postings.items()]
    return {"seq": seq, "kind": kind, "idempotency_key": key, "hold": hold, "postings": told}


LEDGER = [
    entry(1, "receipt", "r", None, outside=-2, available=2),
    entry(2, "hold", "a", "hld_a", available=-1, held=1),
    entry(3, "hold", "b", "hld_b", available=-1, held=1),
    entry(4, "commit", None, "hld_a", held=-1, committed=1),
]
ANSWERS = [
    Answer(1, "hold", "a", 1, 2, 201, None, "hld_a", 1, 99),
    Answer(2, "hold", "b", 1, 2, 201, None, "hld_b", 1, 99),
    Answer(1, "commit", "a", 2, 3, 200, None, "hld_a", 1, None),
]


def test_a_truthful_ledger_has_no_differences() -> None:
    """Every acknowledgement is written once, and nothing else is."""
    assert compare(LEDGER, 2, ANSWERS) == []


def test_an_acknowledged_hold_that_is_missing_is_found() -> None:
    """And so is an acknowledged payment."""
    assert any("holds are not in the ledger" in said for said in compare(LEDGER[:2] + LEDGER[3:], 2, ANSWERS))
    assert any("payments are not in the ledger" in said for said in compare(LEDGER[:3], 2, ANSWERS))


def test_a_hold_that_nobody_was_told_of_is_found_unless_its_answer_was_lost() -> None:
    """A buyer without an answer may have a hold; a buyer who never asked may not."""
    assert any("never acknowledged" in said for said in compare(LEDGER, 2, ANSWERS[::2]))
    lost = Answer(2, "hold", "b", 1, 2, 0, None, None, 1, None)
    assert compare(LEDGER, 2, [*ANSWERS[::2], lost]) == []


def test_more_promised_than_there_was_is_found_at_any_prefix() -> None:
    """Also when it is right again at the end."""
    released = entry(5, "release", None, "hld_b", held=-1, available=1)
    assert most_promised([*LEDGER, released]) == 2
    assert any("promised at once" in said for said in compare([*LEDGER, released], 1, ANSWERS))


def test_two_holds_of_one_key_and_an_entry_that_does_not_sum_to_zero_are_found() -> None:
    """Each is said in a sentence of its own."""
    doubled = [*LEDGER, entry(5, "hold", "b", "hld_c", available=-1, held=2)]
    said = compare(doubled, 9, ANSWERS)
    assert any("more than one hold" in sentence for sentence in said)
    assert any("do not sum to zero" in sentence for sentence in said)
