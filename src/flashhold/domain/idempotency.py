"""Idempotency keys, payload fingerprints and the hold ids that are made from them."""

import re
from binascii import b2a_base64
from collections.abc import Sequence
from hashlib import blake2b

KEY_PATTERN = re.compile(r"[\x21-\x7e]{1,255}")

CART, PART = ".", "~"
"""What the digest of a hold begins with that belongs to a cart over several partitions: its first hold, by whose id the
cart goes, or one of the others. No key's digest begins so, and an id tells without asking a store."""

HOLD_ID = re.compile(r"hld_[0-9a-z]{2}[A-Za-z0-9_.~-][A-Za-z0-9_-]{13}[0-9a-f]{1,14}")
_MARK_AT = 6
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def key_digest(key: str) -> str:
    """14 characters (84 bits) that stand for a key in the store: two keys in 10^9 collide with p < 10^-7,
    and then the later one is refused as reused, unless it also means the same."""
    return key_digests((key,))[0]


def key_digests(keys: Sequence[str]) -> list[str]:
    """The digests of many keys: one encoding to text for all."""
    raw = b"".join([blake2b(key.encode(), digest_size=12).digest() for key in keys])
    text = b2a_base64(raw, newline=False).translate(_URL_SAFE).decode()
    return [text[at : at + 14] for at in range(0, len(text), 16)]


def marked_digest(mark: str, key: str) -> str:
    """What stands for the hold of a cart that the key makes: `CART` or `PART`, and 78 bits of the key's digest."""
    return mark + key_digest(key)[1:]


def fingerprint(meaning: bytes) -> str:
    """12 characters (72 bits) over what a request means, defaults filled in; the same meaning, the same text."""
    return b2a_base64(blake2b(meaning, digest_size=9).digest())[:12].decode()


def hold_id(partition: str, digest: str, seq: int) -> str:
    """A hold's public name: where it lives, the digest of the key that made it, the seq of its first entry.

    The seq keeps a key that is used again after it was forgotten from naming two holds alike.
    """
    return f"{hold_prefix(partition)}{digest}{seq:x}"


def hold_prefix(partition: str) -> str:
    """What the names of all holds of a partition begin with."""
    return f"hld_{partition[1:]}"


def parse_hold_id(text: str) -> tuple[str, str, int] | None:
    """(partition, digest, seq), or None for what cannot be a hold's id."""
    if not HOLD_ID.fullmatch(text):
        return None
    return f"p{text[4:6]}", text[6:20], int(text[20:], 16)


def is_cart(hold: str) -> bool:
    """Whether this is the id of a cart over several partitions."""
    return hold[_MARK_AT : _MARK_AT + 1] == CART


def is_part(hold: str) -> bool:
    """Whether this is the id of a hold that only a cart may end."""
    return hold[_MARK_AT : _MARK_AT + 1] == PART
