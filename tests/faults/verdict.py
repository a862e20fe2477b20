"""What the checker says."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

KEPT_MAX = 100
"""Violations that are kept in words; all are counted."""


KINDS = {
    # the ledger by itself
    "epoch-back": "epochs only grow",
    "seq-fork": "a place is issued once",
    "seq-gap": "seq counts on without a gap",
    "clock-back": "the store's clock is never put back",
    "chain-in-batch": "the head of the chain changes at the borders of batches only",
    "chain-broken": "each head is the hash of the one before and the batch",
    "rows-differ": "the rows are what the journalled batch says",
    "born-twice": "a hold is made once",
    "of-no-hold": "only a hold that was made can change",
    "ended-twice": "a hold ends once; a marked re-acquire after expiry is the exception",
    "reacquired-alive": "only an expired hold is re-acquired",
    "expired-early": "nothing expires before its deadline",
    "changed-late": "an overdue hold is expired for every verb",
    "deadline-differs": "only an extension moves a deadline, and only forwards",
    "buyer-differs": "a hold stays its buyer's",
    "not-zero-sum": "an entry's postings sum to zero for each SKU",
    "units-not-returned": "whoever ends a hold takes all its units out of held",
    "wrong-postings": "a kind moves units between its own buckets only",
    "below-zero": "no bucket holds fewer than no units",
    "oversold": "no more is promised than is there, and no new claim is met from a shortfall",
    "shortfall-differs": "a marked shortfall is what its pools are short of",
    "limit-exceeded": "no buyer gets more than the limit",
    "outside-the-sale": "no hold is made before a sale opens or after it has closed",
    # causes
    "no-cause": "every entry was asked for, or is declared",
    "refused-yet-applied": "what was told No left no entry",
    "not-as-asked": "an entry is what its cause asked for",
    "duplicate-effect": "a key takes effect once",
    # answers
    "acknowledged-lost": "every acknowledged change is in the ledger",
    "acknowledged-elsewhere": "it is where the answer says",
    "answer-differs": "it has the content that was acknowledged",
    "place-missing": "the place that an answer names exists",
    "read-differs": "a strong read is the fold at its place",
    "refused-without-reason": "every refusal is justified by the state at its place",
    "answers-differ": "one key, one answer",
    "two-firsts": "one answer of a key is the first",
    "first-after-replay": "the first answer comes before the repeated ones",
    "replayed-first": "a repeated answer repeats something",
    "key-reuse-accepted": "a key belongs to one payload",
    "reused-without-reason": "only another payload is told that the key was used",
    # real time
    "real-time-inversion": "what was told before something was asked for comes before it",
    "stale-answer": "a decision knows all that had been told before it was asked for",
    "read-goes-back": "so does a strong read",
    # at rest
    "counter-drift": "the store's counters are the fold of the ledger",
    "index-drift": "the deadline index has one member a live hold and pool",
    "store-place": "the store stands where the ledger ends",
    "balance-drift": "the balances are the fold of the ledger",
}
"""Every kind of violation, and the rule that it breaks."""


class Violation(NamedTuple):
    """A broken rule. `kind` names it; `where`: an entry, a call, a key, a pool."""

    kind: str
    where: str
    detail: str


@dataclass
class Verdict:
    """Everything that was found, and how much was looked at (an empty history has no violations either)."""

    violations: list[Violation] = field(default_factory=list)
    by_kind: Counter[str] = field(default_factory=Counter)
    checked: Counter[str] = field(default_factory=Counter)
    """operations, acknowledged, refused, unknown, entries, reads, …; `lost`: acknowledged, lost, and allowed to be."""

    @property
    def clean(self) -> bool:
        return not self.by_kind

    def add(self, kind: str, where: str, detail: str) -> None:
        """Note a violation."""
        assert kind in KINDS, kind
        self.by_kind[kind] += 1
        if len(self.violations) < KEPT_MAX:
            self.violations.append(Violation(kind, where, detail))

    def sentences(self) -> str:
        """For people: the counts, then what is kept."""
        looked = ", ".join(f"{count:,} {what}" for what, count in self.checked.items())
        found = ", ".join(f"{count:,} {kind}" for kind, count in self.by_kind.most_common()) or "no violation"
        lines = [f"{kind} at {where}: {detail}" for kind, where, detail in self.violations]
        return "\n".join([f"{looked}: {found}", *lines])
