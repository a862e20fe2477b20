"""One cluster a kind of server, for as long as the module's tests last; each finds it whole and empty."""

from collections.abc import Iterator

import pytest

from tests.cluster.nodes import LocalCluster, running_cluster
from tests.conftest import REDIS_BINARIES


@pytest.fixture(scope="module", params=list(REDIS_BINARIES))
def one_cluster(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """Three primaries with a replica each."""
    with running_cluster(REDIS_BINARIES[request.param]) as made:
        yield made


@pytest.fixture
def cluster(one_cluster: LocalCluster) -> LocalCluster:
    """The same, whole again and empty after what the test before has done to it."""
    one_cluster.mend()
    for node in one_cluster.nodes:
        if node.info("replication")["role"] == "master":
            node.ask("FLUSHALL")
            node.ask("SCRIPT", "FLUSH")
    return one_cluster
