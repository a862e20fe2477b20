"""API keys: hashed, scoped, revoked."""

import re
from hashlib import sha256

import pytest

from flashhold.domain.errors import Misconfigured
from flashhold.ledger import api_keys
from flashhold.ledger.reader import Reader
from tests.ledger.tables import rows


async def test_a_key_is_known_by_its_hash_alone(database_url: str) -> None:
    """The reader gets what the door needs to check it, and the secret is nowhere in the database."""
    key = api_keys.new_key()
    number = api_keys.key_id(key)
    api_keys.register(database_url, key, ["stock", "holds", "holds"], "shop")
    reader = Reader(database_url)
    found = await reader.api_keys()
    await reader.close()
    secret = key.removeprefix(f"fh_{number}_")
    assert found == [(number, sha256(secret.encode()).digest(), ["holds", "stock"])]
    assert secret not in repr(rows(database_url, "SELECT * FROM api_keys"))


async def test_a_revoked_key_is_no_longer_handed_out(database_url: str) -> None:
    """Revoking is for good, also when it is registered again, and it stays in the list."""
    key = api_keys.new_key()
    api_keys.register(database_url, key, ["admin"])
    assert api_keys.revoke(database_url, api_keys.key_id(key))
    first = api_keys.listed(database_url)[0].revoked_at
    assert api_keys.revoke(database_url, api_keys.key_id(key))
    api_keys.register(database_url, key, ["admin"])
    (listed,) = api_keys.listed(database_url)
    assert listed.revoked_at == first is not None
    reader = Reader(database_url)
    assert await reader.api_keys() == []
    await reader.close()


def test_registering_again_changes_nothing(database_url: str) -> None:
    """A start that crashed after registering may do it again; it cannot widen a key's scopes."""
    key = api_keys.new_key()
    api_keys.register(database_url, key, ["read"], "first")
    api_keys.register(database_url, key, ["admin"], "second")
    (listed,) = api_keys.listed(database_url)
    assert (listed.name, listed.scopes) == ("first", ["read"])


@pytest.mark.parametrize("scopes", [[], ["root"], ["holds", "everything"]])
def test_a_scope_that_there_is_not_is_refused(database_url: str, scopes: list[str]) -> None:
    """No key without a scope, none with one that nobody knows."""
    with pytest.raises(ValueError, match="scopes"):
        api_keys.register(database_url, api_keys.new_key(), scopes)
    assert api_keys.listed(database_url) == []


@pytest.mark.quick
@pytest.mark.parametrize("text", ["", "fh_", "fh_1_2", "xx_" + "0" * 16 + "_" + "a" * 43, "fh_" + "0" * 16 + "_a b"])
def test_what_is_no_key_is_refused(text: str) -> None:
    """A file with something else in it is not registered as a key."""
    with pytest.raises(Misconfigured):
        api_keys.key_id(text)


def test_revoking_what_is_not_there(database_url: str) -> None:
    """Says so."""
    assert not api_keys.revoke(database_url, "0" * 16)


@pytest.mark.quick
def test_keys_are_unlike_and_safe_in_a_header() -> None:
    """256 random bits each, in characters that need no quoting."""
    keys = {api_keys.new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"fh_[0-9a-f]{16}_[\w-]{43}", key, re.ASCII) for key in keys)
