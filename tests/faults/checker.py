"""The linear checker: is what clients were told what the ledger says, and could it all have happened in that order?"""

from tests.faults.history import History
from tests.faults.verdict import Verdict
from tests.faults.views import LedgerView, StoreView

LEVELS = ("memory", "disk", "replica", "ledger")


def check(history: History, ledger: LedgerView, store: StoreView | None = None, *, level: str) -> Verdict:
    """Hold the history against ledger and store, both read after everything came to rest.

    `level`: what the run promised. At `memory` what was acknowledged before the end of a recorded fault may be missing;
    give it too where a fault is one that the deployment's level does not survive (`disk`, and the data deleted).
    """
    assert level in LEVELS, level
    raise NotImplementedError
