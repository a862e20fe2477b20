"""The life of a hold as one table: what each verb does to a hold in each state.

The diagram in the docs is drawn from it, and a test carries out every cell on a real server.
"""

from typing import NamedTuple

from flashhold.domain.model import HoldState
from flashhold.domain.reasons import Reason

H, C, R, E = HoldState.HELD, HoldState.COMMITTED, HoldState.RELEASED, HoldState.EXPIRED


class Cell(NamedTuple):
    """Either the state that the verb leaves, or the reason for which it is refused."""

    to: HoldState | None = None
    refused: Reason | None = None
    replayed: bool = False


VERBS = ("commit", "commit otherwise", "commit, reacquire", "release", "extend", "amend", "expire")
"""`commit otherwise`: with another reference or quantity than the one that committed the hold."""

LIFECYCLE: dict[tuple[HoldState, str], Cell] = {
    (H, "commit"): Cell(C),
    (H, "commit otherwise"): Cell(C),
    (H, "commit, reacquire"): Cell(C),
    (H, "release"): Cell(R),
    (H, "extend"): Cell(H),
    (H, "amend"): Cell(H),
    (H, "expire"): Cell(E),
    (C, "commit"): Cell(C, replayed=True),
    (C, "commit otherwise"): Cell(refused=Reason.ALREADY_COMMITTED),
    (C, "commit, reacquire"): Cell(C, replayed=True),
    (C, "release"): Cell(refused=Reason.ALREADY_COMMITTED),
    (C, "extend"): Cell(refused=Reason.ALREADY_COMMITTED),
    (C, "amend"): Cell(refused=Reason.ALREADY_COMMITTED),
    (C, "expire"): Cell(C),
    (R, "commit"): Cell(refused=Reason.HOLD_RELEASED),
    (R, "commit otherwise"): Cell(refused=Reason.HOLD_RELEASED),
    (R, "commit, reacquire"): Cell(refused=Reason.HOLD_RELEASED),
    (R, "release"): Cell(R, replayed=True),
    (R, "extend"): Cell(refused=Reason.HOLD_RELEASED),
    (R, "amend"): Cell(refused=Reason.HOLD_RELEASED),
    (R, "expire"): Cell(R),
    (E, "commit"): Cell(refused=Reason.HOLD_EXPIRED),
    (E, "commit otherwise"): Cell(refused=Reason.HOLD_EXPIRED),
    (E, "commit, reacquire"): Cell(C),
    (E, "release"): Cell(refused=Reason.HOLD_EXPIRED),
    (E, "extend"): Cell(refused=Reason.HOLD_EXPIRED),
    (E, "amend"): Cell(refused=Reason.HOLD_EXPIRED),
    (E, "expire"): Cell(E),
}
