"""A ledger that was filled from a hand-made journal."""

from collections.abc import Callable, Iterator

import pytest

from flashhold.engine.journal import Journal
from flashhold.ledger.writer import LedgerWriter
from flashhold.services.write_behind import WriteBehind
from tests.ledger.journals import HandJournal


@pytest.fixture
def written(journal: HandJournal, database_url: str) -> Iterator[Callable[[], None]]:
    """Writes what the journal holds into the ledger: `written()`."""
    writing = WriteBehind(Journal(journal.client, "p00"), LedgerWriter(database_url, "p00", holder="test"))

    def write() -> None:
        writing.drain()

    yield write
    writing.close()
