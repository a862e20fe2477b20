"""One cluster a kind of server, for as long as the module's tests last; each finds it whole and empty."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.nodes import LocalCluster
from tests.conftest import REDIS_BINARIES


@pytest.fixture(scope="module", params=list(REDIS_BINARIES))
def one_cluster(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """Three primaries with a replica each."""
    directory = Path(tempfile.mkdtemp(prefix="fh-cluster-"))
    made = LocalCluster(directory, REDIS_BINARIES[request.param])
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def cluster(one_cluster: LocalCluster) -> LocalCluster:
    """The same, whole again and empty after what the test before has done to it."""
    one_cluster.mend()
    for node in one_cluster.nodes:
        if node.info("replication")["role"] == "master":
            node.ask("FLUSHALL")
            node.ask("SCRIPT", "FLUSH")
    return one_cluster
