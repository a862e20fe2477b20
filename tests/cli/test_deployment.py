"""The files by which others deploy FlashHold, checked as far as that goes without Docker."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from flashhold.embedded import servers
from flashhold.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services of docker-compose.yml."""
    compose: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return dict(compose["services"])


@pytest.mark.quick
def test_compose_gives_redis_the_settings_of_up(services: dict[str, Any]) -> None:
    """Whoever deploys by compose must not get weaker promises than who runs `up`."""
    words = services["redis"]["command"]
    given = {name.removeprefix("--"): value for name, value in zip(words[1::2], words[2::2], strict=True)}
    wanted = {
        name: value for name, value in servers._REDIS_SETTINGS.items() if name not in ("daemonize", "protected-mode")
    }
    assert {name: given.get(name) for name in wanted} == wanted
    assert given["requirepass"]


@pytest.mark.quick
def test_compose_starts_in_order(services: dict[str, Any]) -> None:
    """Stores, then the migration once, then who needs it; one image for all that is ours."""
    assert set(services) == {"redis", "postgres", "migrate", "api", "worker"}
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert services["migrate"]["restart"] == "no"
    for name in ("api", "worker"):
        assert services[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
        assert services[name]["image"] == services["migrate"]["image"]


@pytest.mark.quick
def test_compose_publishes_only_the_api(services: dict[str, Any]) -> None:
    """The stores are not reachable from outside, the API only from the same machine."""
    assert [name for name, service in services.items() if "ports" in service] == ["api"]
    assert services["api"]["ports"][0].startswith("127.0.0.1:")


@pytest.mark.quick
def test_compose_sets_what_there_is_to_set(services: dict[str, Any]) -> None:
    """Every variable of ours is a setting, so that none is set in vain, and its value is one that is taken."""
    for name in ("migrate", "api", "worker"):
        given = services[name]["environment"]
        assert {"FLASHHOLD_REDIS_URL", "FLASHHOLD_DATABASE_URL"} <= given.keys()
        known = {f"FLASHHOLD_{field.upper()}": field for field in Settings.model_fields}
        assert given.keys() <= known.keys()
        plain = {known[variable]: re.sub(r"\$\{\w+:-(\w+)\}", r"\1", value) for variable, value in given.items()}
        Settings(**plain)


@pytest.mark.quick
def test_compose_knows_who_is_well_and_keeps_the_data(services: dict[str, Any]) -> None:
    """Whatever goes on running is asked whether it does its work, and both stores keep their files in a volume."""
    running = [name for name, service in services.items() if service["restart"] == "unless-stopped"]
    assert sorted(running) == ["api", "postgres", "redis", "worker"]
    for name in running:
        assert services[name]["healthcheck"]["test"], name
    port = services["worker"]["environment"]["FLASHHOLD_WORKER_METRICS_PORT"]
    assert f":{port}/" in services["worker"]["healthcheck"]["test"][-1]
    assert services["redis"]["volumes"] == ["redis:/data"]
    assert services["postgres"]["volumes"] == ["postgres:/var/lib/postgresql/data"]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("target", "runs"),
    [
        ("setup", "Nothing to be done"),
        ("run", "flashhold up --data-dir"),
        ("test", "-m pytest"),
        ("bench", "-m loadtests.bench"),
        ("drop", "-m loadtests.drop --units 500 --buyers 5000"),
        ("lint", "lint-imports"),
    ],
)
def test_make_knows_its_targets(target: str, runs: str) -> None:
    """Each promised target has a recipe that make can plan, and the set-up is not repeated when nothing has changed."""
    planned = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "-o", ".venv/.installed", target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert planned.returncode == 0, planned.stderr
    assert runs in planned.stdout
    assert "venv --without-pip" not in planned.stdout


@pytest.mark.quick
def test_ci_runs_make_test() -> None:
    """`.ci/run` is executable and calls nothing but `make test`, from the repository's root."""
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "make --no-print-directory test" in script.read_text()
