"""Python's cycle collector, kept from looking through what has no cycles."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def rare_collections() -> Iterator[None]:
    """Rows are tuples that nothing points back at, yet so many live at a time that the cycle collector, at its usual
    threshold, looked through them over and over: a third of this process's time."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
