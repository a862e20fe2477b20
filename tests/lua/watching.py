"""What a script really touches, as the server itself reports it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis

from flashhold.engine.keys import Keys, partition_keys

NAME_OF = {key: name for name, key in partition_keys("p00")._asdict().items()}
"""`{p00}:stock` → stock."""


class Touched:
    """Names of keys, in the words of engine/keys.py."""

    def __init__(self) -> None:
        self.read: set[str] = set()
        self.written: set[str] = set()
        self.calls: list[tuple[str, int]] = []
        """(command, number of its arguments), in order."""


@contextmanager
def watched(url: str) -> Iterator[Touched]:
    """Everything that scripts touch within the `with` block, known at its end."""
    touched = Touched()
    with redis.Redis.from_url(url) as store, store.monitor() as monitor:
        flags = {name.upper(): info["flags"] for name, info in store.command().items()}
        yield touched
        store.echo("the end of the block")
        while True:
            line: dict[str, Any] = monitor.next_command()
            if "the end of the block" in line["command"]:
                return
            if line["client_type"] != "lua":
                continue
            command, *arguments = line["command"].split(" ")
            touched.calls.append((command.upper(), len(arguments)))
            if arguments and arguments[0] in NAME_OF:
                is_write = "write" in flags[command.upper()]
                (touched.written if is_write else touched.read).add(NAME_OF[arguments[0]])


def declared(header: str) -> tuple[set[str], set[str]]:
    """The keys that a header says it reads and writes."""
    found = re.search(r"READS +(.*?) {2,}WRITES +(.*?)(?: {2,}|;|\n|$)", header)
    assert found, f"no line READS …      WRITES … in\n{header}"
    return _names(found[1]), _names(found[2])


def _names(text: str) -> set[str]:
    names = set(re.findall(r"[a-z_]+", re.sub(r"\(.*?\)", "", text))) - {"nothing"}
    unknown = names - set(Keys._fields)
    assert not unknown, f"no such key: {unknown}"
    return names
