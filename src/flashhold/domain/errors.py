"""Accidents. A refusal is an outcome (`outcomes.Refused`); these are what nobody decided.

After any of them but `Overloaded` the fate of the command is unknown: repeat it with the same key.
"""


class FlashHoldError(Exception):
    """FlashHold could not carry out the command."""

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail or (type(self).__doc__ or "").strip())


class Overloaded(FlashHoldError):
    """Too many commands are waiting; this one was not sent. Try again a little later."""


class StoreUnavailable(FlashHoldError):
    """The store did not answer in time; whether the command took effect is unknown. Repeat it with the same key."""


class NotDurable(FlashHoldError):
    """The durability level asked for cannot be met now; whether the command took effect is unknown."""


class Recovering(FlashHoldError):
    """The partition holds no state, or is being rebuilt; nothing is decided until it agrees with the ledger."""


class Emptied(Recovering):
    """The store holds no state of the partition; nothing is decided until it has been made or rebuilt."""


class LedgerUnavailable(FlashHoldError):
    """The ledger database did not answer; holds go on, reads from the ledger have to wait."""


class LedgerConflict(FlashHoldError):
    """The journal and the ledger disagree about an entry; the partition is stopped until someone has looked."""


class BadCursor(FlashHoldError):
    """The cursor is none that a page of this ledger has handed out."""


class Misconfigured(FlashHoldError):
    """A store or a setting is not what this deployment needs; the message says which and what to do."""
