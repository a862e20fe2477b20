"""What the worker shows to Prometheus. One object a process; the names are part of the operator's interface."""

import copy

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_GROUP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

_STATES = {
    "writing": ("ledger_writing", "1 while this process holds the partition's lease, 0 as a stand-by."),
    "halted": ("ledger_halted", "1 while the partition is stopped by a conflict: someone has to look."),
    "lag_entries": ("ledger_lag_entries", "Entries in the journal that the ledger has not yet."),
    "lag_seconds": ("ledger_lag_seconds", "Age of the oldest entry that the ledger has not yet."),
    "journal_batches": ("journal_batches", "Batches that the journal keeps in Redis' memory."),
    "recovering": (
        "recovering",
        "1 while the partition may not decide, because Redis does not have what the ledger has.",
    ),
    "missing_entries": (
        "restore_missing_entries",
        "Entries that Redis had shown and the last restore of this process could not bring back.",
    ),
    "audit_findings": (
        "audit_findings",
        "Differences between Redis and the ledger for which the rolling audit has closed the partition.",
    ),
    "audit_age_seconds": (
        "audit_age_seconds",
        "Time since the rolling audit last finished a round; 0 where another process audits.",
    ),
    "audit_round_seconds": ("audit_round_seconds", "How long its last round took."),
    "lateness_seconds": ("sweep_lateness_seconds", "How long the latest hold of the last sweep had been overdue."),
}
"""States of a partition, of which a sum or the latest would say nothing; what is counted adds up over all of them."""


class WorkerGauges:
    """Figures of the write-behind and the sweeper. With `several` partitions their states carry a label; use `of`."""

    writing: Gauge
    halted: Gauge
    lag_entries: Gauge
    lag_seconds: Gauge
    journal_batches: Gauge
    recovering: Gauge
    missing_entries: Gauge
    audit_findings: Gauge
    audit_age_seconds: Gauge
    audit_round_seconds: Gauge
    lateness_seconds: Gauge

    def __init__(self, registry: CollectorRegistry | None = None, *, several: bool = False) -> None:
        self.registry = registry or CollectorRegistry()
        self._several = several
        self.entries = self._counter("ledger_entries", "Entries written into the ledger by this process.")
        self.group_seconds = Histogram(
            "flashhold_ledger_group_seconds",
            "Time of one write transaction; its count is the number of transactions.",
            buckets=_GROUP_SECONDS,
            registry=self.registry,
        )
        for name, (shown, says) in _STATES.items():
            labels = ("partition",) if several else ()
            setattr(self, name, Gauge(f"flashhold_{shown}", says, labels, registry=self.registry))
        self.restores = self._counter("restores", "Times that this process has rebuilt Redis from the ledger.")
        self.failures = self._counter("worker_failures", "Tries that failed because a store was away.", "store")
        self.expired = self._counter("sweep_expired", "Holds that this process's sweeper found overdue.")
        self.purged = self._counter("sweep_purged", "Records that this process's sweeper forgot after their time.")

    def of(self, partition: str) -> "WorkerGauges":
        """The same figures, those of one partition's state under its label."""
        if not self._several:
            return self
        mine = copy.copy(self)
        for name in _STATES:
            setattr(mine, name, getattr(self, name).labels(partition))
        return mine

    def _counter(self, name: str, says: str, *labels: str) -> Counter:
        return Counter(f"flashhold_{name}", says, labels, registry=self.registry)
