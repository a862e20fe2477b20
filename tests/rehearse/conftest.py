"""Where the recorded files are."""

import os
from pathlib import Path

import pytest

from tests.rehearse import small_shop

_BESIDE_THE_PROJECT = Path(__file__).parents[2].parent / "shared" / "data" / "online_retail.csv.gz"


@pytest.fixture
def small_file() -> Path:
    """A small shop with every oddity of the real file."""
    return small_shop.PATH


@pytest.fixture(scope="session")
def real_file() -> Path:
    """The UCI file, which the project does not contain: from FLASHHOLD_RETAIL_CSV, or beside the project."""
    path = Path(os.environ.get("FLASHHOLD_RETAIL_CSV", _BESIDE_THE_PROJECT))
    if not path.exists():
        pytest.skip("the UCI Online Retail file is not here; FLASHHOLD_RETAIL_CSV can name it")
    return path
