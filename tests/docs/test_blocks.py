"""The comparison that the pages are held to can fail."""

import pytest

from tests.docs.blocks import Block, blocks, shows


def _shown(language: str, text: str) -> Block:
    return Block((language, "output"), text, 1)


@pytest.mark.parametrize(
    ("shown", "output"),
    [
        ('{"id": "hld_00u2TRfEUVHq-OaA2", "seq": 1}', '{"id":"hld_00AAAAAAAAAAAAAA1f","seq":7}'),
        ('{"at": "2026-11-27T09:00:00.000Z", "…": "…"}', '{"at":"2027-01-01T00:00:00.123Z","kind":"hold"}'),
    ],
)
def test_ids_times_and_what_is_left_out_may_differ(shown: str, output: str) -> None:
    """No two runs have the same ids and times."""
    assert shows(_shown("json", shown), output)


@pytest.mark.parametrize(
    ("language", "shown", "output"),
    [
        ("json", '{"state": "held"}', '{"state":"expired"}'),
        ("json", '{"quantity": 1}', '{"quantity":true}'),
        ("json", '{"a": 1}', '{"a":1,"b":2}'),
        ("json", '{"a": 1, "…": "…"}', '{"b":2}'),
        ("json", '{"id": "hld_00u2TRfEUVHq-OaA2"}', '{"id":"u2TRfEUVHq"}'),
        ("json", "[1, 2]", "[1]"),
        ("text", "2 sold, … left", "1 sold, 3 left"),
        ("text", "sold", "sold twice"),
    ],
)
def test_what_a_reader_would_notice_is_noticed(language: str, shown: str, output: str) -> None:
    """Another value, a member more or fewer, another text."""
    assert not shows(_shown(language, shown), output)


def test_blocks_are_found_with_their_words() -> None:
    """The word behind the language decides what is carried out."""
    assert blocks("a\n```sh run\nls\n```\n```json output\n{}\n```\n") == [
        Block(("sh", "run"), "ls\n", 2),
        Block(("json", "output"), "{}\n", 5),
    ]
