"""The command line as such: help, exit statuses, JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from flashhold.cli import app

COMMANDS = typer.main.get_command(app)
NAMES = [
    words
    for name, command in COMMANDS.commands.items()  # type: ignore[attr-defined]  # the app is a group
    for words in ([[name, sub] for sub in command.commands] if hasattr(command, "commands") else [[name]])
]


def flashhold(tmp_path: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in an empty directory, with no store named."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("FLASHHOLD_")} | {"COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "flashhold", *words],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.quick
def test_every_promised_command_is_there() -> None:
    """Nothing is offered that does nothing, and nothing promised is missing."""
    assert {" ".join(words) for words in NAMES} == {
        "up", "serve", "worker", "migrate", "keys create", "keys list", "keys revoke", "doctor", "audit", "resume",
        "restore", "rehearse", "cluster plan",
    }  # fmt: skip


@pytest.mark.quick
@pytest.mark.parametrize("words", NAMES, ids=" ".join)
def test_every_command_shows_an_example(words: list[str], tmp_path: Path) -> None:
    """`--help` ends with a line to copy, and that line is this command's."""
    said = flashhold(tmp_path, *words, "--help")
    assert said.returncode == 0
    assert "Example: " in said.stdout
    assert f"flashhold {' '.join(words)}" in said.stdout.split("Example: ")[1]


@pytest.mark.quick
@pytest.mark.parametrize("words", [["nothing"], ["up", "--port", "70000"], ["keys", "create"], ["doctor", "--bogus"]])
def test_usage_is_status_2(words: list[str], tmp_path: Path) -> None:
    """A wrong word, a value out of range, a missing option."""
    assert flashhold(tmp_path, *words).returncode == 2


@pytest.mark.quick
@pytest.mark.parametrize(
    "words", [["doctor"], ["audit"], ["migrate"], ["keys", "list"], ["resume", "p00"]], ids=" ".join
)
def test_no_store_to_speak_to_is_status_3(words: list[str], tmp_path: Path) -> None:
    """Nothing is guessed: the sentence names the variable and the option, and `--json` is still one JSON object."""
    said = flashhold(tmp_path, *words)
    assert said.returncode == 3
    assert "FLASHHOLD_" in said.stderr
    assert "--data-dir" in said.stderr
    said = flashhold(tmp_path, *words, "--json")
    assert set(json.loads(said.stdout)) == {"error"}


@pytest.mark.quick
def test_a_setting_that_makes_no_sense_stops_up_before_it_starts(tmp_path: Path) -> None:
    """The variable is named, and no directory is made."""
    environ = os.environ | {"FLASHHOLD_DURABILITY": "maybe"}
    said = subprocess.run(
        [sys.executable, "-m", "flashhold", "up"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 1
    assert "FLASHHOLD_DURABILITY" in said.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.quick
def test_a_data_directory_that_cannot_be_is_refused(tmp_path: Path) -> None:
    """A file where the directory should be: a sentence, status 1."""
    (tmp_path / "file").touch()
    said = flashhold(tmp_path, "up", "--data-dir", "file/data")
    assert said.returncode == 1
    assert "Cannot keep data in" in said.stderr


def test_migrate_may_be_repeated(empty_database_url: str, tmp_path: Path) -> None:
    """Both times status 0 and the same revision."""
    environ = os.environ | {"FLASHHOLD_DATABASE_URL": empty_database_url}
    command = [sys.executable, "-m", "flashhold", "migrate", "--json"]
    said = [
        subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert json.loads(said[0]) == json.loads(said[1])
    assert json.loads(said[0])["revision"]
