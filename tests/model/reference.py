"""The reference FlashHold: what each verb must answer, written for the reader and not for speed.

It takes the product's command values and gives the product's outcome values, so that the two can be compared
as they are. Its clock is `now_ms`, set from outside. An overdue hold counts nowhere, but its `expire` entry is
written only when something needs the units or looks at the hold. The product may well write it earlier: a test
then lets the reference `expire` the hold at the same place, which changes no answer.
"""

from typing import Any

from flashhold.domain.outcomes import Refused
from flashhold.domain.reasons import TRANSIENT, Reason
from tests.model.hold_verbs import HoldVerbs
from tests.model.state import No
from tests.model.stock_verbs import StockVerbs


class Reference(HoldVerbs, StockVerbs):
    """One partition. `do` carries out a command at `now_ms` and answers as the product must."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.answers: dict[str, tuple[Any, Any]] = {}

    def do(self, command: Any) -> Any:
        """The outcome of the command, remembered under its key if it has one."""
        key = getattr(command, "key", None)
        if key is not None and key in self.answers:
            asked, answer = self.answers[key]
            if asked == _meaning(command):
                return answer._replace(replayed=True)
            return self._refused(No(Reason.IDEMPOTENCY_KEY_REUSED))
        verb = getattr(self, "_" + type(command).__name__.lower())
        try:
            answer = verb(command)
        except No as no:
            answer = self._refused(no)
        if key is not None and not (isinstance(answer, Refused) and answer.reason in TRANSIENT):
            self.answers[key] = (_meaning(command), answer)
        return answer

    def _refused(self, no: No) -> Refused:
        return Refused(no.reason, no.detail, False, self.partition, self.epoch, self.books.seq)


def _meaning(command: Any) -> Any:
    return type(command).__name__, command
