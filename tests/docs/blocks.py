"""Fenced blocks of Markdown pages, and whether what a page shows is what came out."""

import json
import re
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "loadtests/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

_FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

_CHANGING = (  # what no two runs have alike; a page may show any value of the same kind
    (re.compile(r"hld_[0-9a-z]{2}[A-Za-z0-9_-]{14}[0-9a-f]{1,14}"), "<hold>"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"), "<time>"),
    (re.compile(r"\bfh_[0-9a-f]+_[A-Za-z0-9_-]{43}"), "<key>"),
    (re.compile(r"\b[0-9a-f]{40}\b"), "<chain>"),
)
_ANY = "…"


class Block(NamedTuple):
    """A fenced block. `words`: what stands behind the fence; `line`: where it begins."""

    words: tuple[str, ...]
    text: str
    line: int


class Run(NamedTuple):
    """A block that is carried out, and what the page shows of its output."""

    page: Path
    language: str
    text: str
    line: int
    shown: Block | None


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a page."""
    return [
        Block(tuple(found[1].split()), found[2], text.count("\n", 0, found.start()) + 1)
        for found in _FENCE.finditer(text)
    ]


def runs(page: Path, language: str) -> list[Run]:
    """Blocks marked `run`, each with the `output` block that is the next one, if it is."""
    here = blocks(page.read_text(encoding="utf-8"))
    found = []
    for block, after in zip_longest(here, here[1:]):
        if block.words == (language, "run"):
            shown = after if after is not None and "output" in after.words else None
            found.append(Run(page, language, block.text, block.line, shown))
    return found


def shows(shown: Block, output: str) -> bool:
    """Whether the output is what the page shows: JSON by its members, text by its lines, `…` for anything."""
    if shown.words[0] == "json":
        return _alike(json.loads(shown.text), json.loads(output))
    wanted = ".*?".join(map(re.escape, _leveled(shown.text.strip()).split(_ANY)))
    return re.fullmatch(wanted, _leveled(output.strip()), re.DOTALL) is not None


def _leveled(text: str) -> str:
    for pattern, word in _CHANGING:
        text = pattern.sub(word, text)
    return text


def _alike(shown: Any, found: Any) -> bool:
    match shown, found:
        case dict(), dict():
            named = shown.keys() - {_ANY}
            complete = named == found.keys() or (_ANY in shown and named <= found.keys())
            return complete and all(name == "seq" or _alike(shown[name], found[name]) for name in named)
        case list(), list():
            return len(shown) == len(found) and all(map(_alike, shown, found))
        case str(), str():
            return shown == _ANY or _leveled(shown) == _leveled(found)
        case _:
            return type(shown) is type(found) and shown == found
