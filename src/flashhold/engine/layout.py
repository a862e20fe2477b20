"""How many partitions a cluster should have, and how they fall on its nodes: arithmetic only, nothing is asked.

A partition's slot follows from its name, and sixteen thousand slots cut evenly leave some nodes with many of the few
slots that matter and some with none (six partitions on three nodes: 1, 1 and 4). So the plan cuts the slots between the
partitions instead: each node gets one run of slots, and as many partitions as the next.
"""

import math
from typing import Any, NamedTuple

from redis.crc import key_slot

from flashhold.domain.places import PARTITIONS_MAX, partition_names

SLOTS = 16_384
PARTITIONS_A_NODE = 8
"""So many that a node can be added or lost and the others still have about the same, and so few that each has a batch
to fill: a partition has a connection, a write-behind and an audit of its own."""
SKUS_A_PARTITION_MIN = 20
"""With fewer the fullest partition has more than twice its share."""


class Node(NamedTuple):
    """A primary: its run of slots, both ends included, and the partitions in it."""

    first_slot: int
    last_slot: int
    partitions: tuple[str, ...]


class Layout(NamedTuple):
    """A plan. Skews are of the fullest over the mean: 1.0 is even; `skew_uncut`: with the slots cut evenly."""

    partitions: int
    nodes: tuple[Node, ...]
    skus: int
    skew: float
    skew_uncut: float
    skus_a_partition_max: int
    postgres_connections: int
    """Of one worker; each API process takes four more."""

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        nodes = [
            {"slots": [node.first_slot, node.last_slot], "partitions": list(node.partitions)} for node in self.nodes
        ]
        return {**self._asdict(), "nodes": nodes}


def plan(nodes: int, skus: int, partitions: int | None = None) -> Layout:
    """The layout for so many primaries and SKUs; `partitions`: where their number is chosen already. Raises ValueError
    where there are fewer partitions than nodes."""
    chosen = partitions or min(recommended(nodes, skus), PARTITIONS_MAX)
    if chosen < nodes:
        raise ValueError(f"{chosen} partitions cannot occupy {nodes} nodes")
    by_slot = sorted((key_slot(name.encode()), name) for name in partition_names(chosen))
    cut = _cut(by_slot, nodes)
    uncut = [0] * nodes
    for slot, _ in by_slot:
        uncut[slot * nodes // SLOTS] += 1
    mean = chosen / nodes
    return Layout(
        chosen, cut, skus, _rounded(max(len(node.partitions) for node in cut) / mean), _rounded(max(uncut) / mean),
        fullest(skus, chosen), chosen + WORKER_POOL_MAX,
    )  # fmt: skip


WORKER_POOL_MAX = 16
"""What ledger/connect.py lets a worker open beside one connection a partition."""


def recommended(nodes: int, skus: int) -> int:
    """A power of two, so that a later number of nodes finds about as many for each; fewer where the SKUs are too few to
    fill them, but two a node. One node needs only one: there every cart is atomic, and batches are largest."""
    if nodes == 1:
        return 1
    most, least = _power_of_two(nodes * PARTITIONS_A_NODE), _power_of_two(2 * nodes)
    while most > least and skus / most < SKUS_A_PARTITION_MIN:
        most //= 2
    return most


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def fullest(skus: int, partitions: int) -> int:
    """About how many SKUs the fullest partition gets of those that are placed by their names: balls into bins."""
    mean = skus / partitions
    spread = math.sqrt(2 * mean * math.log(max(2, partitions)))
    return min(skus, math.ceil(mean + spread))


def _cut(by_slot: list[tuple[int, str]], nodes: int) -> tuple[Node, ...]:
    """Runs of slots with as many partitions each. Two partitions can share a slot, and then a node too."""
    made: list[Node] = []
    at = first = 0
    for node in range(nodes):
        to = len(by_slot) * (node + 1) // nodes
        while 0 < to < len(by_slot) and by_slot[to][0] == by_slot[to - 1][0]:
            to += 1
        last = SLOTS - 1 if node == nodes - 1 else (by_slot[to - 1][0] + by_slot[to][0]) // 2
        made.append(Node(first, last, tuple(sorted(name for _, name in by_slot[at:to]))))
        at, first = to, last + 1
    return tuple(made)


def _rounded(skew: float) -> float:
    return round(skew, 2)
