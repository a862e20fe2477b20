"""`flashhold cluster plan`: slots whole, nodes even, and SKUs spread as it says."""

import json
from collections import Counter

import pytest
from redis.crc import key_slot
from typer.testing import CliRunner

from flashhold.cli import app
from flashhold.domain.places import partition_names, place_of
from flashhold.engine.keys import partition_keys
from flashhold.engine.layout import SLOTS, fullest, plan


@pytest.mark.parametrize("nodes", [1, 2, 3, 5, 6, 8, 13, 24, 48])
def test_every_node_gets_a_run_of_slots_with_as_many_partitions_as_the_next(nodes: int) -> None:
    """The runs cover all slots once, each partition's keys fall into its node's, and no node has many more."""
    layout = plan(nodes, 100_000)
    assert [node.first_slot for node in layout.nodes] == [0, *(node.last_slot + 1 for node in layout.nodes[:-1])]
    assert layout.nodes[-1].last_slot == SLOTS - 1
    placed = [name for node in layout.nodes for name in node.partitions]
    assert sorted(placed) == list(partition_names(layout.partitions))
    for node in layout.nodes:
        assert all(
            node.first_slot <= key_slot(key.encode()) <= node.last_slot
            for name in node.partitions for key in partition_keys(name)
        )  # fmt: skip
    assert layout.skew <= 1.15
    assert nodes == 1 or layout.partitions >= 8 * nodes


def test_few_skus_get_few_partitions() -> None:
    """A drop of fifty on three nodes: two partitions a node at least, and not thirty-two that are mostly empty."""
    assert (plan(3, 50).partitions, plan(3, 5_000).partitions, plan(1, 5_000).partitions) == (8, 32, 1)


@pytest.mark.parametrize("form", ["{}", "SKU-{:06}", "shoe-{}-eu-42", "{0:x}{0:x}", "é{}", "4006381{:06}"])
@pytest.mark.parametrize("partitions", [6, 32, 128])
def test_skus_spread_whatever_they_are_called(form: str, partitions: int) -> None:
    """Numbered, prefixed, long or foreign: the fullest partition has about what the plan says, and none is empty."""
    names = partition_names(partitions)
    found = Counter(place_of(form.format(number), names) for number in range(20_000))
    assert len(found) == partitions
    assert max(found.values()) <= 1.1 * fullest(20_000, partitions)


def test_a_sku_stays_where_it_was() -> None:
    """The rule is as lasting as the data: these were so when it was made."""
    names = partition_names(1296)
    assert [place_of(text, names) for text in ("shoe", "é", "{p07}")] == ["p68", "p33", "pkk"]


def test_the_command() -> None:
    """One JSON object; status 2 where there are too few partitions for the nodes."""
    runner = CliRunner()
    done = runner.invoke(app, ["cluster", "plan", "--nodes", "3", "--skus", "5000", "--json"])
    report = json.loads(done.stdout)
    assert (done.exit_code, report["partitions"], len(report["nodes"])) == (0, 32, 3)
    assert "FLASHHOLD_PARTITIONS=32" in runner.invoke(app, ["cluster", "plan", "--nodes", "3", "--skus", "5000"]).stdout
    few = runner.invoke(app, ["cluster", "plan", "--nodes", "3", "--skus", "50", "--partitions", "2"])
    assert few.exit_code == 2
