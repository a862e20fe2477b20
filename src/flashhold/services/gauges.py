"""What the worker shows to Prometheus. One object a process; the names are part of the operator's interface."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_GROUP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class WorkerGauges:
    """Figures of the write-behind and the sweeper."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
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
            registry=self.registry,
        )
        self.halted = Gauge(
            "flashhold_ledger_halted",
            "1 while the partition is stopped by a conflict: someone has to look.",
            registry=self.registry,
        )
        self.lag_entries = Gauge(
            "flashhold_ledger_lag_entries",
            "Entries in the journal that the ledger has not yet.",
            registry=self.registry,
        )
        self.lag_seconds = Gauge(
            "flashhold_ledger_lag_seconds",
            "Age of the oldest entry that the ledger has not yet.",
            registry=self.registry,
        )
        self.journal_batches = Gauge(
            "flashhold_journal_batches", "Batches that the journal keeps in Redis' memory.", registry=self.registry
        )
        self.recovering = Gauge(
            "flashhold_recovering",
            "1 while the partition may not decide, because Redis does not have what the ledger has.",
            registry=self.registry,
        )
        self.restores = Counter(
            "flashhold_restores", "Times that this process has rebuilt Redis from the ledger.", registry=self.registry
        )
        self.missing_entries = Gauge(
            "flashhold_restore_missing_entries",
            "Entries that Redis had shown and the last restore of this process could not bring back.",
            registry=self.registry,
        )
        self.audit_findings = Gauge(
            "flashhold_audit_findings",
            "Differences between Redis and the ledger for which the rolling audit has closed the partition.",
            registry=self.registry,
        )
        self.audit_age_seconds = Gauge(
            "flashhold_audit_age_seconds",
            "Time since the rolling audit last finished a round; 0 where another process audits.",
            registry=self.registry,
        )
        self.audit_round_seconds = Gauge(
            "flashhold_audit_round_seconds", "How long its last round took.", registry=self.registry
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
            registry=self.registry,
        )
