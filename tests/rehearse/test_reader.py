"""Rows become records: each in one class, nothing mangled, whatever is wrong said with its row."""

import gzip
from collections import Counter
from pathlib import Path

import pytest

from flashhold.rehearse.reader import EVENT_HEADER, RETAIL_HEADER, RowClass, UnreadableFile, read
from tests.rehearse import small_shop

pytestmark = pytest.mark.quick


def _retail(tmp_path: Path, *rows: str) -> Path:
    path = tmp_path / "retail.csv"
    path.write_text("\n".join([RETAIL_HEADER, *rows, ""]), encoding="utf-8")
    return path


def _events(tmp_path: Path, *rows: str) -> Path:
    path = tmp_path / "events.csv"
    path.write_text("\n".join([EVENT_HEADER, *rows, ""]), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("row", "row_class"),
    [
        ("536365,85123A,TEXT,6,2010-12-01 08:26:00,2.55", RowClass.SALE),
        ("536365,85123A,TEXT,6,2010-12-01 08:26:00,0.0", RowClass.FIND),
        ("536365,85123A,TEXT,-6,2010-12-01 08:26:00,0.0", RowClass.WRITE_OFF),
        ("536365,85123A,TEXT,-6,2010-12-01 08:26:00,2.55", RowClass.UNCLEAR),
        ("536365,85123A,TEXT,0,2010-12-01 08:26:00,2.55", RowClass.UNCLEAR),
        ("536365,85123A,TEXT,0,2010-12-01 08:26:00,0.0", RowClass.UNCLEAR),
        ("C536379,85123A,TEXT,-6,2010-12-01 08:26:00,2.55", RowClass.RETURN),
        ("C536379,85123A,TEXT,6,2010-12-01 08:26:00,2.55", RowClass.UNCLEAR),
        ("C536379,D,TEXT,-1,2010-12-01 08:26:00,27.50", RowClass.NON_GOODS),
        ("536365,m,TEXT,1,2010-12-01 08:26:00,0.0", RowClass.NON_GOODS),
        ("536365,gift_0001_30,TEXT,10,2010-12-01 08:26:00,0.0", RowClass.NON_GOODS),
        ("536365,DCGS0003,TEXT,1,2010-12-01 08:26:00,2.55", RowClass.SALE),
        ("536365,post,TEXT,1,2010-12-01 08:26:00,2.55", RowClass.SALE),
        ("A563185,B,TEXT,1,2010-12-01 08:26:00,11062.06", RowClass.BOOKKEEPING),
        ("A563186,B,TEXT,1,2010-12-01 08:26:00,-11062.06", RowClass.BOOKKEEPING),
    ],
)
def test_class(tmp_path: Path, row: str, row_class: RowClass) -> None:
    """The first rule that fits decides a row's class; code and quantity come through, the sign goes into the class."""
    (record,) = read(_retail(tmp_path, f"{row},17850.0,France"))
    _, sku, _, quantity, *_ = row.split(",")
    assert (record.row_class, record.quantity, record.sku) == (row_class, abs(int(quantity)), sku)


def test_fields(tmp_path: Path) -> None:
    """Names come through byte for byte, times are UTC, an empty buyer is none."""
    path = _retail(
        tmp_path,
        '536365,e\u0301 ," a, ""b""",6,2010-12-01 08:26:00,2.55,17850.0,France',
        "536365,é,x,7,2010-12-01 08:27:00,2.55,,France",
    )
    first, second = read(path)
    assert (first.row, first.order, first.sku, first.buyer) == (1, "536365", "e\u0301 ", "17850.0")
    assert first.reason == ' a, "b"'
    assert first.at_s == 1_291_191_960.0
    assert (second.row, second.sku, second.buyer, second.at_s) == (2, "é", None, 1_291_192_020.0)


def test_gzip_is_the_same(tmp_path: Path, small_file: Path) -> None:
    """A gzipped file is told by its bytes, not by its name."""
    zipped = tmp_path / "no-suffix"
    zipped.write_bytes(gzip.compress(small_file.read_bytes()))
    assert list(read(zipped)) == list(read(small_file))


def test_limit(small_file: Path) -> None:
    """A limit takes the first rows."""
    assert list(read(small_file, 7)) == list(read(small_file))[:7]


def test_small_shop_is_what_its_generator_writes() -> None:
    """The committed file has every class of the retail form, and comes from the generator beside it."""
    assert small_shop.PATH.read_bytes() == small_shop.build().encode()
    seen = {record.row_class for record in read(small_shop.PATH)}
    assert seen == set(RowClass) - {RowClass.ABANDONED, RowClass.RECEIPT}


def test_events(tmp_path: Path) -> None:
    """The event form: its types, a signed adjustment, a zone in the time, empty fields."""
    path = _events(
        tmp_path,
        "2025-11-28T09:00:00Z,receipt,,tee,100,,",
        "2025-11-28T10:00:00+01:00,sale,o1,tee,2,anna,",
        ",abandoned,o2,tee,1,,",
        ",return,o1,tee,1,anna,too small",
        ",damage,,tee,3,,torn",
        ",adjustment,,tee,-4,,count",
        ",adjustment,,tee,5,,count",
    )
    records = list(read(path))
    assert [(r.row_class, r.quantity, r.damaged) for r in records[4:]] == [
        (RowClass.WRITE_OFF, 3, True),
        (RowClass.WRITE_OFF, 4, False),
        (RowClass.FIND, 5, False),
    ]
    assert [r.row_class for r in records[:4]] == [
        RowClass.RECEIPT, RowClass.SALE, RowClass.ABANDONED, RowClass.RETURN,
    ]  # fmt: skip
    assert records[0].at_s == records[1].at_s
    assert records[2].at_s is None


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (",sale,o1,tee,0,,", "row 2: a quantity must be in 1-1000000000"),
        (",sale,o1,tee,-1,,", "row 2: a quantity must be in"),
        (",sale,o1,tee,1000000001,,", "row 2: a quantity must be in"),
        (",sale,o1,tee,1.5,,", "row 2: invalid literal"),
        (",sale,o1,,1,,", "row 2: sku must be 1-128 characters"),
        (",sale,,tee,1,,", "row 2: order must be 1-128 characters"),
        (",sale,o1," + "x" * 129 + ",1,,", "row 2: sku must be 1-128 characters"),
        (",sale,o1,a\x07b,1,,", "none a control character"),
        (",sell,o1,tee,1,,", "row 2: type 'sell' is not one of"),
        ("yesterday,sale,o1,tee,1,,", "row 2: Invalid isoformat"),
        (",sale,o1,tee,1", "row 2: not enough values"),
        (",sale,o1,tee,1,,,", "row 2: too many values"),
    ],
)
def test_bad_event(tmp_path: Path, row: str, said: str) -> None:
    """What can't be played is refused before anything is played, with the row's number."""
    path = _events(tmp_path, ",sale,o0,tee,1,,", row)
    with pytest.raises(UnreadableFile, match=said):
        list(read(path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the header is ''"),
        (b"a,b,c\n1,2,3\n", "the header is 'a,b,c'"),
        (RETAIL_HEADER.encode() + b"\n\xff\xfe", "can't decode"),
        (gzip.compress(RETAIL_HEADER.encode(), mtime=0)[:-12], "ended"),
        (b"\x1f\x8bnot gzip at all", "Unknown compression|CRC|Error"),
    ],
)
def test_bad_file(tmp_path: Path, content: bytes, said: str) -> None:
    """What is not one of the two forms is refused in words."""
    path = tmp_path / "f.csv"
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match=said):
        list(read(path))


@pytest.mark.slow
def test_real_file(real_file: Path) -> None:
    """The known facts of the UCI file: every row counted once, sums, classes, odd codes."""
    records = list(read(real_file))
    classes = Counter(record.row_class for record in records)
    assert len(records) == sum(classes.values()) == 541_909
    cancelled = [r for r in records if r.order.startswith("C")]
    assert len(cancelled) == 9_288
    assert classes[RowClass.RETURN] + sum(r.row_class is RowClass.NON_GOODS for r in cancelled) == 9_288
    assert classes[RowClass.WRITE_OFF] == 1_336
    free_non_goods = 18
    assert classes[RowClass.FIND] + free_non_goods == 1_179
    assert classes[RowClass.BOOKKEEPING] == 3
    assert classes[RowClass.UNCLEAR] == classes[RowClass.ABANDONED] == classes[RowClass.RECEIPT] == 0
    assert len({r.order for r in records}) == 25_900
    assert len({r.sku for r in records}) == 4_070
    down = (RowClass.RETURN, RowClass.WRITE_OFF)
    goods_down = sum(r.quantity for r in records if r.row_class in down)
    others_down = sum(r.quantity for r in cancelled if r.row_class is RowClass.NON_GOODS)
    assert goods_down + others_down == 484_531
    assert sum(r.quantity for r in records) - 484_531 == 5_660_981
