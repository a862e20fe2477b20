"""Payloads of one key are compared by what they mean, not by how they are written."""

from flashhold import Applied, Engine, Line, Reason, Refused


async def _two_shoes(engine: Engine) -> str:
    await engine.move("receipt", "shoe", 10, key="receipt")
    hold = await engine.hold(key="hold", lines=[Line("shoe", 2), Line("shoe", 1)])
    assert isinstance(hold, Applied)
    return hold.value.id


async def test_a_commit_of_all_lines_is_a_commit_without_lines(engine: Engine) -> None:
    """Whichever of the two ways comes first, the other is its repetition under the same key."""
    hold = await _two_shoes(engine)
    first = await engine.commit(hold, lines=[Line("shoe", 3)], reference="order", key="commit")
    again = await engine.commit(hold, reference="order", key="commit")
    written_out = await engine.commit(hold, lines=[Line("shoe", 2), Line("shoe", 1)], reference="order", key="commit")
    assert isinstance(first, Applied) and not first.replayed
    assert again == written_out == first._replace(replayed=True)


async def test_a_commit_of_some_lines_is_another_payload(engine: Engine) -> None:
    """Less than all under the key of a whole commit is refused as reused, and the other way round."""
    hold = await _two_shoes(engine)
    await engine.commit(hold, reference="order", key="commit")
    less = await engine.commit(hold, lines=[Line("shoe", 1)], reference="order", key="commit")
    assert isinstance(less, Refused) and less.reason is Reason.IDEMPOTENCY_KEY_REUSED


async def test_a_rule_of_zeros_is_no_rule(engine: Engine) -> None:
    """A replaced policy that spells out its defaults equals one that leaves them out."""
    await engine.move("receipt", "shoe", 10, key="receipt")
    zeros = {"pools": {"default": {"safety_stock": 0, "oversell_allowance": 0}}, "max_per_buyer": 2}
    first = await engine.set_policy("shoe", zeros, replace=True, key="policy")
    again = await engine.set_policy("shoe", {"max_per_buyer": 2}, replace=True, key="policy")
    assert isinstance(first, Applied)
    assert again == first._replace(replayed=True)
