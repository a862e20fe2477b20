"""The one loader of Lua: reads the files, puts includes in their place, adds the header that Redis wants."""

import hashlib
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

SCHEMA = 2
"""Layout of what the scripts store. A store with another schema is refused at start."""

_INCLUDE = re.compile(r"^--@include (\S+)\n", re.MULTILINE)


class Script(NamedTuple):
    """Lua source and the name by which EVALSHA knows it."""

    source: bytes
    sha: str


class Scripts(NamedTuple):
    """`apply` is refused by a server that is out of memory; `apply_freeing`, the same text, is not: it is for
    batches of verbs that give memory and stock back."""

    apply: Script
    apply_freeing: Script
    install: Script
    inspect: Script
    restore: Script
    survey: Script

    def by_sha(self) -> dict[str, Script]:
        return {script.sha: script for script in self}


def lua_folder() -> Path:
    """The scripts beside the package in a wheel, or at the top of a checkout."""
    inside = Path(str(files("flashhold"))) / "lua"
    return inside if inside.is_dir() else Path(__file__).resolve().parents[3] / "lua"


def _script(folder: Path, name: str, flags: str) -> Script:
    body = (folder / name).read_text(encoding="utf-8")
    body = _INCLUDE.sub(lambda match: (folder / match[1]).read_text(encoding="utf-8") + "\n", body)
    source = f"#!lua{flags and ' flags=' + flags}\n{body}".encode()
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest())


@cache
def load_scripts(folder: Path | None = None) -> Scripts:
    """The composed scripts of a Lua folder (default: the product's own)."""
    folder = folder or lua_folder()
    return Scripts(
        apply=_script(folder, "apply.lua", ""),
        apply_freeing=_script(folder, "apply.lua", "allow-oom"),
        install=_script(folder, "install.lua", ""),
        inspect=_script(folder, "inspect.lua", "no-writes"),
        restore=_script(folder, "restore.lua", ""),
        survey=_script(folder, "survey.lua", "no-writes"),
    )
