"""What the checker says."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

KEPT_MAX = 100
"""Violations that are kept in words; all are counted."""


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
        self.by_kind[kind] += 1
        if len(self.violations) < KEPT_MAX:
            self.violations.append(Violation(kind, where, detail))

    def sentences(self) -> str:
        """For people: the counts, then what is kept."""
        looked = ", ".join(f"{count:,} {what}" for what, count in self.checked.items())
        found = ", ".join(f"{count:,} {kind}" for kind, count in self.by_kind.most_common()) or "no violation"
        lines = [f"{kind} at {where}: {detail}" for kind, where, detail in self.violations]
        return "\n".join([f"{looked}: {found}", *lines])
