"""What can be checked of prose: links lead somewhere, one word means one thing, named files are there."""

import re
from pathlib import Path

import pytest

from flashhold.domain.entries import BUCKETS
from flashhold.domain.model import HoldState
from tests.docs.blocks import PAGES, ROOT

pytestmark = pytest.mark.quick

_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)

INSTEAD = {
    r"\breserv(e|es|ed|ation|ations|ing)\b": "hold",
    r"\bTTL out\b|\btimes? out\b": "expire",
    r"\binventory\b": "stock",
    r"\bevent sourcing\b|\boutbox\b": "journal, ledger",
    r"\bblazing|\bseamless|\brobust\b|\bworld-class\b|\bsimply\b|\bcutting-edge\b": "nothing",
}
"""Words that a page may not use for ours."""


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the page's headings."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in _HEADING.findall(text)}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    """To a file that is there, and to a heading that it has. Links to other sites are not followed."""
    dead = []
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            dead.append(target)
    assert not dead


def test_every_page_can_be_reached_from_the_readme() -> None:
    """A page that no link leads to is read by nobody."""
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        for target in _LINK.findall(page.read_text(encoding="utf-8")):
            file = (page.parent / target.partition("#")[0]).resolve()
            if file.suffix == ".md" and file.exists() and file not in reached:
                waiting.append(file)
    assert set(PAGES) <= reached


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "glossary.md"], ids=_name)
def test_one_word_for_one_thing(page: Path) -> None:
    """The words are the glossary's; only it may name those that are not ours."""
    text = _CODE.sub("", page.read_text(encoding="utf-8"))
    found = {
        match[0]: instead for wrong, instead in INSTEAD.items() for match in re.finditer(wrong, text, re.IGNORECASE)
    }
    assert not found


def test_the_glossary_knows_the_words_of_the_domain() -> None:
    """Buckets, states of a hold and verbs."""
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").lower()
    words = {*BUCKETS, *(state.label for state in HoldState), "extend", "amend", "movement", "policy", "sellable"}
    missing = {word for word in words if word.removesuffix("d") not in glossary}
    assert not missing


def test_the_places_of_a_verb_are_there() -> None:
    """CONTRIBUTING names eight places for a verb such as `amend`: each file is there, and knows that verb."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split("## To add a verb")[1].split("\n## ")[0]
    numbered = section[section.index("\n1. ") : section.index("\n8. ")] + section.split("\n8. ")[1].split("\n\n")[0]
    assert len(re.findall(r"^\d\. ", section, re.MULTILINE)) == 8
    files = re.findall(r"`((?:src|lua|tests)/[^`]+)`", numbered)
    assert len(files) > 12
    for file in files:
        knows = file.endswith("reasons.py") or "amend" in (ROOT / file).read_text(encoding="utf-8").lower()
        assert (ROOT / file).exists() and knows, file


def test_named_files_and_commands_are_there() -> None:
    """Paths in backticks, and `make` targets, in every page."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    missing = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for path in re.findall(r"`((?:src|lua|tests|docs|loadtests)/[\w./-]+)`", text):
            if not (ROOT / path).exists():
                missing.append((_name(page), path))
        for target in re.findall(r"`make ([a-z]+)|^(?:\$|   ) make ([a-z]+)", text, re.MULTILINE):
            if not {*target} & targets:
                missing.append((_name(page), target))
    assert not missing
