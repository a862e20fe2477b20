"""What the worker shows to Prometheus. One object a process; the names are part of the operator's interface."""

import copy

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_GROUP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

_OF_A_PARTITION = (
    "writing", "halted", "lag_entries", "lag_seconds", "journal_batches", "recovering", "missing_entries",
    "audit_findings", "audit_age_seconds", "audit_round_seconds", "lateness_seconds",
)  # fmt: skip
"""States, of which a sum or the latest would say nothing; what is counted adds up over all partitions."""


class WorkerGauges:
    """Figures of the write-behind and the sweeper. With `several` partitions their states carry a label; use `of`."""

    def __init__(self, registry: CollectorRegistry | None = None, *, several: bool = False) -> None:
        self.registry = registry or CollectorRegistry()
        self._several = several
        labels = ["partition"] if several else []
        self.entries = Counter(
            "flashhold_ledger_entries", "Entries written into the ledger by this process.", registry=self.registry
        )
        self.group_seconds = Histogram(
            "flashhold_ledger_group_seconds",
            "Time of one write transaction; its count is the number of transactions.",
            buckets=_GROUP_SECONDS,
            registry=self.registry,
        )
        self.writing = Gauge(
            "flashhold_ledger_writing",
            "1 while this process holds the partition's lease, 0 as a stand-by.",
            labelnames=labels,
            registry=self.registry,
        )
        self.halted = Gauge(
            "flashhold_ledger_halted",
            "1 while the partition is stopped by a conflict: someone has to look.",
            labelnames=labels,
            registry=self.registry,
        )
        self.lag_entries = Gauge(
            "flashhold_ledger_lag_entries",
            "Entries in the journal that the ledger has not yet.",
            labelnames=labels,
            registry=self.registry,
        )
        self.lag_seconds = Gauge(
            "flashhold_ledger_lag_seconds",
            "Age of the oldest entry that the ledger has not yet.",
            labelnames=labels,
            registry=self.registry,
        )
        self.journal_batches = Gauge(
            "flashhold_journal_batches",
            "Batches that the journal keeps in Redis' memory.",
            labelnames=labels,
            registry=self.registry,
        )
        self.recovering = Gauge(
            "flashhold_recovering",
            "1 while the partition may not decide, because Redis does not have what the ledger has.",
            labelnames=labels,
            registry=self.registry,
        )
        self.restores = Counter(
            "flashhold_restores", "Times that this process has rebuilt Redis from the ledger.", registry=self.registry
        )
        self.missing_entries = Gauge(
            "flashhold_restore_missing_entries",
            "Entries that Redis had shown and the last restore of this process could not bring back.",
            labelnames=labels,
            registry=self.registry,
        )
        self.audit_findings = Gauge(
            "flashhold_audit_findings",
            "Differences between Redis and the ledger for which the rolling audit has closed the partition.",
            labelnames=labels,
            registry=self.registry,
        )
        self.audit_age_seconds = Gauge(
            "flashhold_audit_age_seconds",
            "Time since the rolling audit last finished a round; 0 where another process audits.",
            labelnames=labels,
            registry=self.registry,
        )
        self.audit_round_seconds = Gauge(
            "flashhold_audit_round_seconds", "How long its last round took.", labelnames=labels, registry=self.registry
        )
        self.failures = Counter(
            "flashhold_worker_failures",
            "Tries that failed because a store was away.",
            ["store"],
            registry=self.registry,
        )
        self.expired = Counter(
            "flashhold_sweep_expired", "Holds that this process's sweeper found overdue.", registry=self.registry
        )
        self.purged = Counter(
            "flashhold_sweep_purged",
            "Records that this process's sweeper forgot after their time.",
            registry=self.registry,
        )
        self.lateness_seconds = Gauge(
            "flashhold_sweep_lateness_seconds",
            "How long the latest hold of the last sweep had been overdue.",
            labelnames=labels,
            registry=self.registry,
        )

    def of(self, partition: str) -> "WorkerGauges":
        """The same figures, those of one partition's state under its label."""
        if not self._several:
            return self
        mine = copy.copy(self)
        for name in _OF_A_PARTITION:
            setattr(mine, name, getattr(self, name).labels(partition))
        return mine
