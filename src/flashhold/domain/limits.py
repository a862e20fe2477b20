"""What a name and a quantity may be. The door checks requests with these; the engine trusts it."""

import re

QUANTITY_MIN, QUANTITY_MAX = 1, 1_000_000_000
TEXT_LENGTH_MAX = 128
LINES_MAX = 100

TEXT_PATTERN = r"\A[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,128}\Z"
"""SKU, pool, buyer, reference, reason: any valid characters but control characters; byte-exact, never normalised."""

_TEXT = re.compile(TEXT_PATTERN)


def is_text(value: str) -> bool:
    """Whether the value can be the name of something."""
    return _TEXT.match(value) is not None


def is_quantity(value: int) -> bool:
    """Whether the value can be a number of units."""
    return QUANTITY_MIN <= value <= QUANTITY_MAX
