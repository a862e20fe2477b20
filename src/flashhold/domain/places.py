"""Partitions by name, and which of them a SKU belongs to."""

import string
from collections.abc import Sequence
from hashlib import blake2b

PARTITIONS_MAX = 36 * 36
_DIGITS = string.digits + string.ascii_lowercase


def partition_names(partitions: int) -> tuple[str, ...]:
    """p00, p01, … in order: two digits of base 36."""
    return tuple(f"p{_DIGITS[at // 36]}{_DIGITS[at % 36]}" for at in range(partitions))


def place_of(text: str, names: Sequence[str]) -> str:
    """The partition that a SKU (or a partition key) falls to. As lasting as the data: another rule, or another number
    of partitions, would look for every SKU where it is not."""
    return names[int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) % len(names)]
