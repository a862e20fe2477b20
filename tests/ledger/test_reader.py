"""Pages of the ledger: their order, their cursors, their filters, and their calm while others write."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from flashhold.domain.errors import BadCursor, LedgerUnavailable
from flashhold.engine.journal import Journal
from flashhold.ledger.pages import cursor_of, positions_of
from flashhold.ledger.reader import Reader
from flashhold.ledger.writer import LedgerWriter
from flashhold.services.write_behind import WriteBehind
from tests.ledger.journals import AT_MS, FAR_MS, HandJournal, committed, entry, held, id_of, receipt, released
from tests.ledger.tables import rows

Write = Callable[[], None]
NOBODYS = "hld_00" + "x" * 14 + "1"


@pytest_asyncio.fixture
async def reader(database_url: str) -> AsyncIterator[Reader]:
    """A reader of the test's database."""
    one = Reader(database_url)
    yield one
    await one.close()


async def walk(page: Callable[..., Any], limit: int, **filters: Any) -> list[dict[str, Any]]:
    """All items, page by page."""
    items: list[dict[str, Any]] = []
    cursor = None
    while True:
        found = await page(**filters, cursor=cursor, limit=limit)
        assert len(found["items"]) <= limit
        items += found["items"]
        cursor = found["next_cursor"]
        if cursor is None:
            return items


async def test_an_empty_ledger_has_empty_pages(reader: Reader) -> None:
    """Before anything was written there is a page, and it says that it knows of nothing."""
    page = await reader.ledger_page()
    assert page == {"items": [], "next_cursor": None, "as_of": "1970-01-01T00:00:00.000Z"}
    assert (await reader.holds_page())["items"] == []
    assert await reader.place("p00") is None
    assert await reader.hold(id_of(1)) is None


async def test_an_entry_reads_as_the_contract_has_it(journal: HandJournal, written: Write, reader: Reader) -> None:
    """Every member, in place and null where it does not apply; a sku of any letters comes back byte for byte."""
    sku = "{p00}:ß 😀/é"
    journal.put(receipt(sku, 9))
    journal.put(held(2, sku, 2, buyer="ann", expires_ms=AT_MS + 5000, shortfall=3))
    written()
    page = await reader.ledger_page()
    assert page["items"][0] == {
        "partition": "p00", "epoch": 1, "seq": 1, "at": "2026-01-01T00:00:00.000Z", "kind": "receipt", "hold": None,
        "buyer": None, "reference": None, "reason": None, "idempotency_key": f"receipt of {sku}", "expires_at": None,
        "shortfall": None,
        "postings": [
            {"sku": sku, "pool": "default", "bucket": "outside", "quantity": -9},
            {"sku": sku, "pool": "default", "bucket": "available", "quantity": 9},
        ],
        "chain": rows_of_chain(journal)[0],
    }  # fmt: skip
    second = page["items"][1]
    assert second["at"] == "2026-01-01T00:00:00.001Z" and second["expires_at"] == "2026-01-01T00:00:05.000Z"
    assert (second["hold"], second["buyer"], second["shortfall"]) == (id_of(2), "ann", 3)
    assert second["chain"] == journal.chain
    assert (await reader.ledger_page(sku=sku))["items"] == page["items"]
    assert page["as_of"] == "2026-01-01T00:00:00.001Z"


def rows_of_chain(journal: HandJournal) -> list[str]:
    """The chain's heads as the journal has them."""
    records: Any = journal.client.xrange(journal.keys.journal)
    return [fields[b"chain"].decode() for _, fields in records]


async def test_pages_of_every_size_give_the_same_entries(journal: HandJournal, written: Write, reader: Reader) -> None:
    """Nothing skipped, nothing repeated, in ledger order, whatever the limit."""
    journal.fill(8)
    written()
    whole = await walk(reader.ledger_page, 1000)
    assert [item["seq"] for item in whole] == list(range(1, journal.seq + 1))
    for limit in (1, 7, journal.seq - 1, journal.seq):
        assert await walk(reader.ledger_page, limit) == whole


FILTERS: list[dict[str, Any]] = [
    {"sku": "sock"},
    {"sku": "no such sku"},
    {"kind": "commit"},
    {"kind": "hold"},
    {"kind": "receipt"},
    {"kind": "transfer"},
    {"hold": id_of(3)},
    {"hold": id_of(3)[:-1] + "f"},
    {"hold": "not an id"},
    {"hold": NOBODYS},
    {"partition": "p00"},
    {"partition": "p01"},
    {"sku": "shoe", "kind": "release"},
    {"sku": "shoe", "hold": id_of(4), "kind": "release"},
    {"sku": "sock", "hold": id_of(4)},
]


@pytest.mark.parametrize("filters", FILTERS, ids=repr)
async def test_a_filter_is_what_one_would_pick_by_hand(
    journal: HandJournal, written: Write, reader: Reader, filters: dict[str, Any]
) -> None:
    """Each filter, alone and together, finds exactly those entries of the whole that have it."""
    journal.fill(8)
    written()
    whole = await walk(reader.ledger_page, 1000)
    wanted = [
        item
        for item in whole
        if all(item[name] == value for name, value in filters.items() if name != "sku")
        and ("sku" not in filters or any(posting["sku"] == filters["sku"] for posting in item["postings"]))
    ]
    for limit in (1, 3, 1000):
        assert await walk(reader.ledger_page, limit, **filters) == wanted


async def test_reading_to_the_end_while_writes_go_on(
    journal: HandJournal, written: Write, reader: Reader, database_url: str
) -> None:
    """A reader of small pages, with others writing all the time, sees a gap-free sequence, each entry once."""
    journal.fill(10)
    written()
    stop = threading.Event()

    def sell() -> None:
        while not stop.is_set():
            journal.fill(1)
            written()

    selling = threading.Thread(target=sell)
    selling.start()
    try:
        seen: list[int] = []
        cursor = None
        while len(seen) < 300:
            page = await reader.ledger_page(cursor=cursor, limit=10)
            seen += [item["seq"] for item in page["items"]]
            cursor = page["next_cursor"] or cursor
            if page["next_cursor"] is None:
                seen = seen[: len(seen) - len(page["items"])]  # the last page is read again from where it began
            await asyncio.sleep(0.001)
    finally:
        stop.set()
        selling.join()
    assert seen == list(range(1, len(seen) + 1))
    assert rows(database_url, "SELECT count(*) FROM entries")[0][0] > 120


async def test_holds_pages_stay_put_while_their_states_change(
    journal: HandJournal, written: Write, reader: Reader
) -> None:
    """Pages are cut in the order in which holds were made, so that a commit moves none from page to page."""
    journal.fill(6)
    written()
    first = await reader.holds_page(limit=5)
    journal.put(*[committed(seq, "shoe" if seq % 3 else "sock") for seq in range(journal.seq - 7, journal.seq - 3)])
    journal.fill(2)
    written()
    rest = await walk(lambda **more: reader.holds_page(**{**more, "cursor": more["cursor"] or first["next_cursor"]}), 4)
    made = [hold["id"] for hold in first["items"] + rest]
    assert len(made) == len(set(made)) == 32
    assert made == [id_of(int(one[20:], 16)) for one in sorted(made, key=lambda one: int(one[20:], 16))]


async def test_two_partitions_are_read_to_the_end_of_both(
    journal: HandJournal, written: Write, reader: Reader, database_url: str, one_redis_url: str
) -> None:
    """What the first partition gets while the second is being read is not skipped: the cursor has a place for each."""
    other = HandJournal(one_redis_url, "p01")
    writing = WriteBehind(Journal(other.client, "p01"), LedgerWriter(database_url, "p01", holder="test"))
    journal.fill(2)
    other.put(receipt("hat", 1), receipt("cap", 1))
    other.put(receipt("bag", 1))
    written()
    writing.drain()
    first = journal.seq
    page = await reader.ledger_page(limit=first + 1)
    assert [item["partition"] for item in page["items"]] == ["p00"] * first + ["p01"]
    journal.fill(1)
    written()
    rest = await walk(lambda **more: reader.ledger_page(**{**more, "cursor": more["cursor"] or page["next_cursor"]}), 2)
    places = [(item["partition"], item["seq"]) for item in page["items"] + rest]
    assert sorted(places) == [("p00", n) for n in range(1, journal.seq + 1)] + [("p01", n) for n in (1, 2, 3)]
    writing.close()
    other.close()


@pytest.mark.parametrize("cursor", ["", "x", "é", "AAAA", "gaNwMDCSAQ", "****", "gaNwMDCS_w", "-" * 512])
async def test_a_cursor_from_elsewhere_is_refused(reader: Reader, cursor: str) -> None:
    """Whatever was not handed out by a page is said to be so, never an error of the database."""
    for page in (reader.ledger_page, reader.holds_page):
        with pytest.raises(BadCursor):
            await page(cursor=cursor)


@pytest.mark.quick
def test_cursors_come_back_as_they_went() -> None:
    """Positions survive the trip through the client, in characters that need no escaping."""
    positions = {f"p{number:02d}": (3, 2**62 + number) for number in range(16)}
    text = cursor_of(positions)
    assert positions_of(text) == positions
    assert len(text) <= 512 and text.isascii() and not set(text) & set("+/=&? ")


async def make_holds(journal: HandJournal, written: Write) -> None:
    """One hold of each fate; the third is overdue, nobody has swept it."""
    journal.put(receipt("shoe", 50), receipt("sock", 50))
    journal.put(held(3, "shoe", 2, buyer="ann", details={"metadata": '{"a":1.50}'}))
    journal.put(held(4, "shoe", 2, buyer="bob", expires_ms=AT_MS + 60_000))
    journal.put(held(5, "sock", 2, buyer="ann", expires_ms=AT_MS + 60_000))
    journal.put(held(6, "sock", 3, details={"lines": [["sock", "default", 3, 9], ["hat", "default", 0, 1]]}))
    journal.put(held(7, "shoe"), held(8, "shoe", buyer="ann"))
    journal.put(committed(3, "shoe", 2, reference="sale-3", buyer="ann"))
    journal.put(released(4, "shoe", 2, kind="expire", expires_ms=AT_MS + 60_000))
    journal.put(released(7, "shoe", reason="changed mind"))
    swap = [["shoe", "default", 0, 1, -1, 0, 0, 0], ["sock", "default", 0, -2, 2, 0, 0, 0]]
    now = {"lines": [["sock", "default", 2]]}
    journal.put(entry("amend", swap, hold=(id_of(8)[6:20], 8), expires_ms=FAR_MS, details=now))
    written()


@pytest.mark.parametrize(
    ("filters", "seqs"),
    [
        ({}, [3, 4, 5, 6, 7, 8]),
        ({"buyer": "ann"}, [3, 5, 8]),
        ({"buyer": "nobody"}, []),
        ({"state": "held"}, [6, 8]),
        ({"state": "expired"}, [4, 5]),
        ({"state": "committed"}, [3]),
        ({"state": "released"}, [7]),
        ({"sku": "shoe"}, [3, 4, 7]),
        ({"sku": "sock"}, [5, 6, 8]),
        ({"sku": "sock", "buyer": "ann", "state": "held"}, [8]),
        ({"sku": "no such"}, []),
    ],
)
async def test_holds_by_buyer_sku_and_state(
    journal: HandJournal, written: Write, reader: Reader, filters: dict[str, Any], seqs: list[int]
) -> None:
    """Each filter finds the holds that have it now: an overdue one is expired, an amended one has its new lines."""
    await make_holds(journal, written)
    for limit in (1, 2, 1000):
        found = await walk(reader.holds_page, limit, **filters)
        assert [hold["id"] for hold in found] == [id_of(seq) for seq in seqs]


async def test_a_hold_reads_as_the_contract_has_it(journal: HandJournal, written: Write, reader: Reader) -> None:
    """Committed, partial, overdue, amended, released: each as the strong read would show it."""
    await make_holds(journal, written)
    shown = [msgspec.json.decode(msgspec.json.encode(await reader.hold(id_of(seq)))) for seq in range(3, 9)]
    assert shown[0] == {
        "id": id_of(3), "state": "committed",
        "lines": [{"sku": "shoe", "pool": "default", "quantity": 2, "committed": 2, "released": 0}],
        "buyer": "ann", "created_at": "2026-01-01T00:00:00.002Z", "expires_at": "2100-01-01T00:00:00.000Z",
        "ended_at": "2026-01-01T00:00:00.008Z", "reference": "sale-3", "reason": None, "reacquired": False,
        "metadata": {"a": 1.5}, "partition": "p00", "epoch": 1, "seq": 9,
    }  # fmt: skip
    assert b'{"a":1.50}' in msgspec.json.encode(await reader.hold(id_of(3))), "metadata keeps its letters"
    assert (shown[1]["state"], shown[1]["ended_at"]) == ("expired", "2026-01-01T00:00:00.009Z")
    assert (shown[2]["state"], shown[2]["ended_at"], shown[2]["seq"]) == ("expired", "2026-01-01T00:01:00.000Z", 5)
    assert [(line["sku"], line["quantity"], line["requested"]) for line in shown[3]["lines"]] == [
        ("sock", 3, 9),
        ("hat", 0, 1),
    ]
    assert (shown[4]["state"], shown[4]["reason"], shown[4]["lines"][0]["released"]) == ("released", "changed mind", 1)
    assert shown[5]["lines"] == [{"sku": "sock", "pool": "default", "quantity": 2, "committed": 0, "released": 0}]
    assert (await reader.holds_page())["items"] == [await reader.hold(id_of(seq)) for seq in range(3, 9)]


async def test_an_id_with_another_digest_is_unknown(journal: HandJournal, written: Write, reader: Reader) -> None:
    """A made-up id with the seq of somebody's hold shows nothing of it."""
    await make_holds(journal, written)
    assert await reader.hold(id_of(3)) is not None
    assert await reader.hold("hld_00" + "x" * 14 + "3") is None
    assert (await reader.ledger_page(hold="hld_00" + "x" * 14 + "3"))["items"] == []


async def test_a_hold_with_several_deadlines_has_the_last(journal: HandJournal, written: Write, reader: Reader) -> None:
    """Extended in the group that made it, or in a later one: the last deadline counts, in page and filter."""
    extend = [["shoe", "default", 0, 0, 0, 0, 0, 0]]
    journal.put(receipt("shoe", 5), held(2, "shoe", expires_ms=AT_MS + 10), held(3, "shoe", expires_ms=AT_MS + 10))
    journal.put(entry("extend", extend, hold=(id_of(2)[6:20], 2), expires_ms=FAR_MS))
    written()

    async def deadlines(state: str) -> list[tuple[str, str]]:
        page = await reader.holds_page(state=state)
        return [(hold["id"], hold["expires_at"]) for hold in page["items"]]

    far, near = "2100-01-01T00:00:00.000Z", "2026-01-01T00:00:00.010Z"
    assert await deadlines("held") == [(id_of(2), far)]
    assert await deadlines("expired") == [(id_of(3), near)]
    journal.put(entry("extend", extend, hold=(id_of(3)[6:20], 3), expires_ms=FAR_MS))
    written()
    assert await deadlines("held") == [(id_of(2), far), (id_of(3), far)]
    assert await deadlines("expired") == []


async def test_place_says_how_far_and_whether_it_was_stopped(
    journal: HandJournal, written: Write, reader: Reader
) -> None:
    """What readiness compares with the store."""
    journal.fill(2)
    written()
    assert await reader.place("p00") == ("p00", 1, journal.seq, journal.chain, None, None)
    journal.put(receipt("hat", 1), chain="0" * 40)
    for _ in range(4):
        written()
    place = await reader.place("p00")
    assert place is not None and place.halted is not None and "chain" in place.halted


async def test_away_is_said_soon() -> None:
    """Nobody listens there: a reader's caller hears of it in a few seconds."""
    away = Reader("postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(LedgerUnavailable):
        await asyncio.wait_for(away.ledger_page(), 5)
    await away.close()


async def test_a_hold_is_given_again_only_by_a_ledger_that_knows_all_of_it(
    journal: HandJournal, written: Write, reader: Reader
) -> None:
    """With what was given back of it; not while the ledger is behind the place asked for, nor for another partition."""
    journal.put(receipt("shoe", 9), held(2, "shoe", 3), held(3, "shoe"))
    back = entry("return", [["shoe", "default", -2, 2, 0, 0, 0, 0]], key="back", movement_hold=id_of(2))
    journal.put(committed(2, "shoe", 3, reference="order"), back)
    written()
    sold = await reader.hold_again(id_of(2), "p00", 1, 5)
    assert sold is not None
    assert (sold.state.label, sold.seq, sold.lines) == ("committed", 2, (("shoe", "default", 3, 3, 0, 2, False),))
    assert sold.last is not None and (sold.last.seq, sold.last.reference) == (4, "order")
    assert await reader.hold_again(id_of(2), "p01", 1, 5) is None
    assert await reader.hold_again(NOBODYS, "p00", 1, 5) is None
    with pytest.raises(LedgerUnavailable):
        await reader.hold_again(id_of(2), "p00", 1, 6)
