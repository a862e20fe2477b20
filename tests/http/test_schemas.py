"""What bodies mean: the commands made from them, and what no type can refuse."""

from typing import Any

import pytest

from flashhold.domain import commands
from flashhold.domain.model import Line
from flashhold.http import schemas
from flashhold.http.bodies import Body
from flashhold.http.problems import Problem

WITH_KEY = schemas.Request("key-1", "a/b")


def hold(text: str) -> commands.Hold:
    return schemas.hold_command(Body(schemas.HoldBody).read(text.encode()), WITH_KEY)


def move(**members: Any) -> commands.Move:
    return schemas.movement_command(schemas.MovementBody(**members), WITH_KEY)


def policy(text: str, replace: bool = False) -> commands.SetPolicy:
    body = Body(schemas.PolicyBody, always_exactly=True).read(text.encode())
    return (schemas.put_policy_command if replace else schemas.patch_policy_command)(body, WITH_KEY)


def test_a_hold_with_everything() -> None:
    """Every member of a hold's body reaches its command, in the engine's units."""
    assert hold(
        '{"lines":[{"sku":"a","quantity":2},{"sku":"b","quantity":1,"pool":"eu"}],"buyer":"x","ttl_seconds":60,'
        '"allow_partial":true,"metadata":{"b":[1,2],"a":"é"}}'
    ) == commands.Hold(
        "key-1", (Line("a", 2), Line("b", 1, "eu")), "x", 60_000, True, '{"a":"é","b":[1,2]}'
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ['{"lines":[{"quantity":1,"sku":"a"}]}', '{"lines":[{"sku":"a","quantity":1,"pool":"default"}]}',
     '{"metadata":{},"lines":[{"sku":"a","quantity":1,"pool":null}],"buyer":null,"ttl_seconds":null,"allow_partial":false}',
     '{"metadata":null,"lines":[{"sku":"\\u0061","quantity":1}],"allow_partial":null}'],
)  # fmt: skip
def test_equal_meanings_make_equal_commands(text: str) -> None:
    """Order, defaults, nulls and escapes don't matter, so they can't make a repeated key look reused."""
    assert hold(text) == commands.Hold("key-1", (Line("a", 1),))


def test_metadata_is_bounded_in_depth() -> None:
    """An object 32 levels deep is kept, a deeper one refused; brackets inside texts are no depth."""
    deep = '{"a":' * 31 + "{}" + "}" * 31
    base = '{"lines":[{"sku":"a","quantity":1}],"metadata":%s}'
    assert hold(base % deep).metadata == deep
    assert hold(base % ('{"a":"%s"}' % ("[{" * 50))).metadata
    with pytest.raises(Problem, match="invalid-request"):
        hold(base % (f'{{"a":{deep}}}'))


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"type": "receipt", "quantity": 0}, "quantity"),
        ({"type": "receipt", "quantity": -1}, "quantity"),
        ({"type": "shipment", "quantity": -5}, "quantity"),
        ({"type": "adjustment", "quantity": 0, "reason": "count"}, "quantity"),
        ({"type": "adjustment", "quantity": -3}, "reason"),
        ({"type": "transfer", "quantity": 1}, "to_pool"),
        ({"type": "transfer", "quantity": 1, "to_pool": "default"}, "to_pool"),
        ({"type": "transfer", "quantity": 1, "pool": "eu", "to_pool": "eu"}, "to_pool"),
        ({"type": "receipt", "quantity": 1, "to_pool": "eu"}, "to_pool"),
    ],
)
def test_refuses_movements_that_their_type_rules_out(members: dict[str, Any], field: str) -> None:
    """A sign, a reason, a second pool: what a type needs or cannot have is said by field."""
    with pytest.raises(Problem) as caught:
        move(sku="a", **members)
    assert caught.value.members["errors"][0]["field"] == field


@pytest.mark.parametrize("quantity", [-1_000_000_000, -1, 1, 1_000_000_000])
def test_an_adjustment_is_signed(quantity: int) -> None:
    """An adjustment goes both ways, up to the limit."""
    assert move(type="adjustment", sku="a", quantity=quantity, reason="count").quantity == quantity


def test_a_policy_with_everything() -> None:
    """Every member of a policy reaches its command: times in ms, the top level as the pool `default`."""
    command = policy(
        '{"class":"x","safety_stock":3,"oversell_allowance":0,"hold_ttl_seconds":10,"hold_ttl_seconds_max":20,'
        '"max_per_buyer":2,"opens_at":"2026-07-01T12:00:00.5+02:00","closes_at":"2026-07-01T10:00:01Z","partition_key":"drop",'
        '"pools":{"eu":{"safety_stock":1}}}',
        replace=True,
    )
    assert command == commands.SetPolicy(
        "a/b",
        {
            "class": "x", "hold_ttl_ms": 10_000, "hold_ttl_max_ms": 20_000, "max_per_buyer": 2,
            "opens_at_ms": 1_782_900_000_500, "closes_at_ms": 1_782_900_001_000, "partition_key": "drop",
            "pools": {"eu": {"safety_stock": 1}, "default": {"safety_stock": 3, "oversell_allowance": 0}},
        },
        True,
        "key-1",
    )  # fmt: skip


def test_null_in_a_policy_is_not_given() -> None:
    """A merge with null changes nothing, for null equals absent everywhere."""
    assert policy('{"class":null,"safety_stock":null,"pools":{"eu":null}}').fields == {}


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"hold_ttl_seconds":10,"hold_ttl_seconds_max":5}', "hold_ttl_seconds"),
        ('{"safety_stock":1,"pools":{"default":{"safety_stock":2}}}', "pools.default.safety_stock"),
        ('{"opens_at":"1969-12-31T23:59:59Z"}', "opens_at"),
    ],
)
def test_refuses_policies_that_contradict_themselves(text: str, field: str) -> None:
    """Two values for one rule, or an instant before time began, are invalid."""
    with pytest.raises(Problem) as caught:
        policy(text)
    assert caught.value.members["errors"][0]["field"] == field
