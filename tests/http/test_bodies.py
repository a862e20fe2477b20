"""What a body may be: every kind of broken, odd and hostile JSON."""

import json
from typing import Any

import pytest

from flashhold.http.bodies import Body
from flashhold.http.problems import Problem
from flashhold.http.schemas import AmendBody, CommitBody, HoldBody, MovementBody, PolicyBody, ReleaseBody

HOLD = Body(HoldBody)


def refused(body: Body[Any], text: str | bytes) -> Problem:
    """The problem that reading this text ends with."""
    with pytest.raises(Problem) as caught:
        body.read(text.encode() if isinstance(text, str) else text)
    return caught.value


def fields(problem: Problem) -> list[str]:
    return [error["field"] for error in problem.members["errors"]]


def with_quantity(text: str) -> str:
    return f'{{"lines":[{{"sku":"a","quantity":{text}}}]}}'


def with_sku(text: str) -> str:
    return f'{{"lines":[{{"sku":{text},"quantity":1}}]}}'


@pytest.mark.parametrize("text", ["1", "1000000000", " 7\n"])
def test_takes_whole_quantities(text: str) -> None:
    """A JSON integer within the limits is a quantity."""
    assert HOLD.read(with_quantity(text).encode()).lines[0].quantity == int(text)


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "-1",
        "-0",
        "1.5",
        "1.0",
        "1e3",
        "1E0",
        '"5"',
        '""',
        "true",
        "false",
        "null",
        "[]",
        "[1]",
        "{}",
        str(10**9 + 1),
        str(2**31),
        str(2**53),
        str(2**63),
        str(2**64),
        "9" * 30,
        "9" * 5000,
        "1e400",
    ],
)
def test_refuses_other_quantities(text: str) -> None:
    """Nothing but an integer in range is a quantity, however near it comes; the field is named."""
    problem = refused(HOLD, with_quantity(text))
    assert (problem.code, fields(problem)) == ("invalid-request", ["lines[0].quantity"])


@pytest.mark.parametrize(
    "text", ["NaN", "Infinity", "-Infinity", "01", "+1", "1.", ".5", "0x10", "1_000", "'1'", "", "nan"]
)
def test_refuses_numbers_that_json_does_not_have(text: str) -> None:
    """What is not in the JSON grammar is malformed, not merely invalid."""
    assert refused(HOLD, with_quantity(text)).code == "malformed-json"


@pytest.mark.parametrize(
    "sku",
    ["{p00}", "{}", "a:b", "🛒", "👩‍👩‍👧", "é", "e\u0301", "a/b", "../..", " ", "a b", "%2F", "\u200b", "\ufeff",
     "\U0010ffff", "\uffff",
     "x" * 128, "🛒" * 128, '"', "\\", "<script>", "'; DROP TABLE holds;--", "null", "\u202e", "\xa0"],
)  # fmt: skip
@pytest.mark.parametrize("ascii_only", [False, True])
def test_takes_any_text_byte_for_byte(sku: str, ascii_only: bool) -> None:
    """Any valid characters name a SKU, escaped or not, and none is changed."""
    body = json.dumps({"lines": [{"sku": sku, "quantity": 1}]}, ensure_ascii=ascii_only)
    assert HOLD.read(body.encode()).lines[0].sku == sku


@pytest.mark.parametrize(
    "text",
    ['""', '"a\\u0000"', '"\\n"', '"\\t"', '"\\u001f"', '"\\u007f"', '"\x7f"', '"\\u0080"', '"\x85"',
     '"\\u009f"', '"a\\n"',
     '"' + "x" * 129 + '"', '"' + "🛒" * 129 + '"', '"' + "x" * 10_000 + '"', "1", "null", "[]", "{}", "true",
     r'"\ud800"', r'"\udc00"', r'"\ud800x"', r'"a\ud83dA"'],
)  # fmt: skip
def test_refuses_text_that_names_nothing(text: str) -> None:
    """Control characters, lone surrogates and lengths beyond the limit name nothing; the field is said."""
    problem = refused(HOLD, with_sku(text))
    assert (problem.code, fields(problem)) == ("invalid-request", ["lines[0].sku"])


@pytest.mark.parametrize(
    "text",
    [b"{", b"}", b"[", b"{}}", b"nul", b'{"lines"}', b'{"lines":[}', b'{"lines":[],}', b"{'lines':[]}",
     b"\xff", b"\x00",
     b"{} {}", b'\xef\xbb\xbf{"lines":[{"sku":"a","quantity":1}]}', '{"lines":[]}'.encode("utf-16"), b'"\xc3"',
     b'"\xed\xa0\x80"',
     b'{"lines":[{"sku":"\xff","quantity":1}]}', b'{"lines":[{"sku":"a\nb","quantity":1}]}', b'{"a":"\\x41"}',
     b'{"a":"\\u12"}',
     b"// {}", b" ", b"\n"],
)  # fmt: skip
def test_refuses_what_is_not_json(text: bytes) -> None:
    """Broken syntax, other encodings, byte order marks, raw control characters and white space alone are malformed."""
    assert refused(HOLD, text).code == "malformed-json"


@pytest.mark.parametrize("text", ["null", "[]", '"x"', "1", "true", "[{}]"])
def test_refuses_json_that_is_no_object(text: str) -> None:
    """Well-formed JSON that is no object is invalid."""
    assert refused(HOLD, text).code == "invalid-request"


@pytest.mark.parametrize("text", ["[" * 10_000 + "]" * 10_000, '{"a":' * 10_000 + "1" + "}" * 10_000, "[" * 60_000])
@pytest.mark.parametrize("whole", ["%s", '{"lines":[{"sku":"a","quantity":1}],"metadata":{"a":%s}}', '{"lines":%s}'])
def test_refuses_deep_bodies(text: str, whole: str) -> None:
    """Nesting without end is refused like any other broken body, wherever it stands."""
    assert refused(HOLD, whole % text).code == "malformed-json"


@pytest.mark.parametrize(
    "text",
    ['{"lines":[{"sku":"a","quantity":1}],"lines":[{"sku":"b","quantity":1}]}',
     '{"lines":[{"sku":"a","quantity":1,"quantity":1}]}',
     '{"lines":[{"sku":"a","sku":"a","quantity":1}]}',
     '{"lines":[{"sku":"a","quantity":1}],"buyer":"x","buyer":null}',
     '{"lines":[{"sku":"a","quantity":1}],"buyer":null,"buyer":null}',
     '{"lines":[{"sku":"a","quantity":1}],"metadata":{"k":1,"k":2}}',
     '{"lines":[{"sku":"a","quantity":1}],"metadata":{"k":[{"n":1,"n":1}]}}',
     '{"lines":[{"sku":"a\\u003ab","sku":"a\\u003ab","quantity":1}]}',
     '{"lines":[{"sku":"a","\\u0073ku":"b","quantity":1}]}',
     '{"x":1,"x":2}',
     '{"lines":[{"sku":"a","quantity":0}],"buyer":"x","buyer":"y"}'],
)  # fmt: skip
def test_refuses_members_that_are_there_twice(text: str) -> None:
    """No reading can tell which of two equal members was meant, also where the body is otherwise invalid."""
    assert refused(HOLD, text).code == "malformed-json"


@pytest.mark.parametrize(
    "text",
    ['{"lines":[{"sku":"a:b:c","quantity":1},{"sku":"a:b:c","quantity":1}]}',
     '{"lines":[{"sku":"a","quantity":1,"pool":null}],"buyer":null,"allow_partial":false,"metadata":{}}',
     '{"lines":[{"sku":"\\"a\\":","quantity":1}],"metadata":{"a":{"a":{"a":":"}}}}',
     '{ "lines" : [ { "sku" : "a" , "quantity" : 1 } ] }'],
)  # fmt: skip
def test_takes_members_that_only_look_doubled(text: str) -> None:
    """The cheap count of colons errs only on the careful side."""
    assert HOLD.read(text.encode()).lines


@pytest.mark.parametrize(
    ("body", "text", "field"),
    [
        (HOLD, '{"lines":[{"sku":"a","quantity":1}],"x":1}', "x"),
        (HOLD, '{"lines":[{"sku":"a","quantity":1,"x":null}]}', "lines[0].x"),
        (HOLD, '{"Lines":[{"sku":"a","quantity":1}]}', "Lines"),
        (HOLD, "{}", "lines"),
        (HOLD, "", "lines"),
        (HOLD, '{"lines":[{"quantity":1}]}', "lines[0].sku"),
        (HOLD, '{"lines":[]}', "lines"),
        (HOLD, '{"lines":null}', "lines"),
        (HOLD, '{"lines":{}}', "lines"),
        (HOLD, json.dumps({"lines": [{"sku": "a", "quantity": 1}] * 101}), "lines"),
        (HOLD, '{"lines":[{"sku":"a","quantity":1}],"ttl_seconds":0}', "ttl_seconds"),
        (HOLD, '{"lines":[{"sku":"a","quantity":1}],"ttl_seconds":1.5}', "ttl_seconds"),
        (HOLD, '{"lines":[{"sku":"a","quantity":1}],"allow_partial":"yes"}', "allow_partial"),
        (HOLD, '{"lines":[{"sku":"a","quantity":1}],"allow_partial":1}', "allow_partial"),
        (HOLD, '{"lines":[{"sku":"a","quantity":1}],"metadata":[]}', "metadata"),
        (HOLD, '{"lines":[{"sku":"a","quantity":1}],"metadata":"x"}', "metadata"),
        (HOLD, '{"lines":[{"sku":"a","quantity":1}],"metadata":{"a":"\\u0000"}}', "metadata.a"),
        (HOLD, '{"lines":[{"sku":"a","quantity":1}],"metadata":{"\\u0000":1}}', "metadata"),
        (HOLD, '{"lines":[{"sku":"a","quantity":1}],"metadata":{"a":["\\ud800"]}}', "metadata.a[0]"),
        (HOLD, '{"lines":[{"sku":"a","quantity":1}],"metadata":{"a":1e999}}', "metadata"),
        (HOLD, '{"lines":[{"sku":"a","quantity":1}],"metadata":{"a":%s}}' % ("9" * 5000), "metadata"),
        (HOLD, '{"lines":[{"sku":"a","quantity":1}],"buyer":""}', "buyer"),
        (HOLD, '{"lines":[{"sku":"a","quantity":1}],"buyer":7}', "buyer"),
        (Body(CommitBody), '{"lines":[]}', "lines"),
        (Body(CommitBody), '{"if_expired":"maybe"}', "if_expired"),
        (Body(CommitBody), '{"reference":""}', "reference"),
        (Body(ReleaseBody), '{"reason":5}', "reason"),
        (Body(AmendBody), "{}", "lines"),
        (Body(MovementBody), '{"type":"gift","sku":"a","quantity":1}', "type"),
        (Body(MovementBody), '{"type":"receipt","sku":"a"}', "quantity"),
        (Body(MovementBody), '{"type":"receipt","sku":"a","quantity":1000000001}', "quantity"),
        (Body(PolicyBody), '{"safety_stock":-1}', "safety_stock"),
        (Body(PolicyBody), '{"max_per_buyer":0}', "max_per_buyer"),
        (Body(PolicyBody), '{"opens_at":"tomorrow"}', "opens_at"),
        (Body(PolicyBody), '{"opens_at":"2026-07-01T10:00:00"}', "opens_at"),
        (Body(PolicyBody), '{"opens_at":1}', "opens_at"),
        (Body(PolicyBody), '{"pools":{"eu":{"safety":1}}}', "pools.safety"),
        (Body(PolicyBody), '{"pools":{"":{}}}', "pools"),
    ],
)
def test_names_the_field_that_is_wrong(body: Body[Any], text: str, field: str) -> None:
    """An invalid body is answered with the field, in the form `lines[0].quantity`."""
    problem = refused(body, text)
    assert (problem.code, fields(problem)) == ("invalid-request", [field])


def test_an_empty_body_is_an_empty_object() -> None:
    """Where nothing is required, no body says as much as `{}`, and null as much as absence."""
    commit = Body(CommitBody)
    assert commit.read(b"") == commit.read(b"{}") == commit.read(b'{"reference":null,"lines":null,"if_expired":null}')


def test_syntax_is_judged_before_fields() -> None:
    """A body that is both invalid and broken is broken, wherever the invalid field stands."""
    assert refused(HOLD, '{"lines":[{"sku":"a","quantity":"1"}], broken').code == "malformed-json"


def test_policies_with_instants_hide_no_doubled_member() -> None:
    """An instant may be written anew with more colons than it came with; that must not make up for a doubled member."""
    text = '{"max_per_buyer":1,"max_per_buyer":1,"opens_at":"2026-01-01T10:00:00+0200"}'
    assert refused(Body(PolicyBody, always_exactly=True), text).code in ("malformed-json", "invalid-request")
    text = '{"max_per_buyer":1,"max_per_buyer":1,"opens_at":"2026-01-01T10:00:00Z"}'
    assert refused(Body(PolicyBody, always_exactly=True), text).code == "malformed-json"
