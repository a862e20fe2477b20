"""Commands to what the scripts read, and their replies to outcomes. The layouts are those of lua/verbs/*.lua."""

from collections.abc import Sequence
from typing import Any, NamedTuple, assert_never

import msgspec

from flashhold.domain import commands, model
from flashhold.domain.commands import Command
from flashhold.domain.entries import Entry, PoolChange
from flashhold.domain.idempotency import fingerprint, hold_id, key_digest, parse_hold_id
from flashhold.domain.model import HoldLine, HoldState, Line, PoolPolicy
from flashhold.domain.outcomes import Applied, Outcome, Refused
from flashhold.domain.reasons import Reason
from flashhold.domain.revival import RevivedHold

_pack = msgspec.msgpack.Encoder().encode
unpack = msgspec.msgpack.Decoder().decode

HELD_NEW, HOLD, ENTRY, REFUSAL, POLICY, STOCK_READ, SWEPT, HELD_PARTLY, AGAIN = 0, 1, 2, 3, 4, 5, 6, 7, 9

Wire = tuple[Any, ...]

_NO_HOLD = ("", 0)
_STATES = tuple(HoldState)


class Moment(NamedTuple):
    """Where and when a batch was decided."""

    partition: str
    now_ms: int
    epoch: int
    seq: int
    chain: str
    raised: dict[str, str] | bool = False
    """Durability that policies ask for, by SKU; False where none of the batch's SKUs asks."""


def flat_lines(lines: Sequence[Line]) -> Sequence[str | int]:
    """sku, pool, quantity, …: a command without inner arrays costs the script a third of the tables."""
    if len(lines) == 1:
        sku, quantity, pool = lines[0]
        return (sku, pool, quantity)
    return [value for sku, quantity, pool in lines for value in (sku, pool, quantity)]


def _hold_name(text: str) -> tuple[str, int]:
    """A text that cannot be a hold's id is looked up as a hold that nobody made."""
    parsed = parse_hold_id(text)
    return parsed[1:] if parsed else _NO_HOLD


def _keyed(verb: str, key: str | None, *meaning: Any) -> Wire:
    """The members that all verbs begin with. The fingerprint covers the verb and whatever follows."""
    if key is None:
        return (verb, "", "", "", *meaning)
    return (verb, key_digest(key), fingerprint(_pack((verb, meaning))), key, *meaning)


def encode(command: Command) -> Wire:  # noqa: C901, PLR0912  # one case a verb; a table of functions would hide them
    """The command as the script reads it; a hold of whole lines is a run of one (engine/runs.py)."""
    match command:
        case commands.Hold():
            return _encode_hold(command)
        case commands.HoldPart():
            return _encode_part(command)
        case commands.Commit():
            return _encode_commit(command)
        case commands.Release(hold, reason, key):
            return _keyed("release", key, *_hold_name(hold), reason or "")
        case commands.Extend(hold, ttl_ms_more, key):
            return _keyed("extend", key, *_hold_name(hold), ttl_ms_more)
        case commands.Amend(hold, lines, key):
            return _keyed("amend", key, *_hold_name(hold), *flat_lines(lines))
        case commands.Move():
            about = (command.reason or "", command.reference or "", command.hold or "", command.to_pool or "")
            where = (command.kind, command.sku, command.pool, command.quantity)
            # Behind the meaning: what the ledger knows of the hold does not make the movement another one.
            return (*_keyed("move", command.key, *where, *about, *_hold_name(command.hold or "")), _recalled(command))
        case commands.SetPolicy(sku, fields, replace, key):
            wire = _keyed("policy", key, sku, replace, _policy_fields(fields, replace))
            return (*wire, command.aim, command.moves) if command.aim else wire
        case commands.CountBuyers(sku, part, last, units):
            return ("count", "", "", "", sku, part, last, *(value for pair in units.items() for value in pair))
        case commands.ReadHold(hold):
            return ("read_hold", "", "", "", *_hold_name(hold))
        case commands.ReadStock(sku, pool):
            return ("read_stock", "", "", "", sku, pool)
        case commands.Sweep(expire_max, purge_max):
            return ("expire", "", "", "", expire_max, purge_max)
        case _:
            assert_never(command)


def _recalled(command: commands.Move) -> Any:
    if command.ask_ledger:
        return 0
    return False if command.recalled is None else revived_row(command.recalled)


def revived_row(hold: RevivedHold) -> tuple[Any, ...]:
    """A hold out of the ledger, as lua/include/records.lua makes a record of it."""
    return (*hold[:10], hold.last or False, hold.original or False, hold.seq, hold.expires_ms)


def _encode_commit(command: commands.Commit) -> Wire:
    """With the fingerprint that it has without its lines, in case they turn out to be all that the hold has."""
    hold, reference, lines, reacquire, key = command
    meaning = (*_hold_name(hold), reference or "", reacquire)
    flat = flat_lines(lines or ())
    if key is None:
        return ("commit", "", "", "", *meaning, "", *flat)
    whole = fingerprint(_pack(("commit", meaning)))
    mark = fingerprint(_pack(("commit", meaning, flat))) if lines else whole
    return ("commit", key_digest(key), mark, key, *meaning, whole, *flat)


def _encode_hold(command: commands.Hold) -> Wire:
    """A hold that takes what is left of each line."""
    key, lines, buyer, ttl_ms, _, metadata = command
    return _keyed("hold_partially", key, buyer or "", ttl_ms or 0, metadata or "", *flat_lines(lines))


def _encode_part(command: commands.HoldPart) -> Wire:
    """A hold of a cart over several partitions."""
    key, digest, meaning, lines, metadata, buyer, ttl_ms, lives_on, refusal = command
    mark = fingerprint(_pack(("hold_part", meaning)))
    life_ms = -1 if lives_on else ttl_ms or 0
    said = (buyer or "", life_ms, metadata, refusal or False)
    return ("hold_part", key_digest(key), mark, key, digest, *said, *flat_lines(lines))


def _policy_fields(fields: dict[str, Any], replace: bool) -> dict[str, Any]:
    """Sorted, so that the same policy has the same fingerprint; -1 in a pool means: leave as it is."""
    wire = {name: fields[name] for name in sorted(fields) if fields[name] is not None and name != "pools"}
    pools = {name: pool or {} for name, pool in (fields.get("pools") or {}).items()}
    rules = {
        name: [_or_unset(pools[name].get(member), replace) for member in PoolPolicy._fields] for name in sorted(pools)
    }
    # A rule that says what no rule would say means the same as none.
    unset = _or_unset(None, replace)
    wire["pools"] = {name: rule for name, rule in rules.items() if rule != [unset, unset]}
    return wire


def _or_unset(units: int | None, replace: bool) -> int:
    return (0 if replace else -1) if units is None else units


def decode(command: Command, digest: str, reply: Sequence[Any], moment: Moment) -> Outcome[Any]:
    """The outcome that a reply to one command means. `AGAIN` is not an outcome: the batcher asks again before."""
    kind = reply[0]
    if kind == HELD_PARTLY:
        assert isinstance(command, commands.Hold)
        return Applied(_held_partly(command, digest, reply, moment))
    if kind == HOLD:
        return Applied(_hold(reply, moment.partition), bool(reply[1]))
    if kind == REFUSAL:
        return Refused(Reason(reply[2]), _detail(reply[3]), bool(reply[1]), moment.partition, reply[4], reply[5])
    if kind == ENTRY:
        _, replayed, epoch, seq, at_ms, entry, chain = reply
        return Applied(decode_entry(entry, moment.partition, epoch, seq, at_ms, chain), bool(replayed))
    if kind == POLICY:
        assert isinstance(command, commands.SetPolicy | commands.CountBuyers)
        _, replayed, created, details, epoch, seq = reply
        return Applied(policy(command.sku, details, created, moment.partition, epoch, seq), bool(replayed))
    if kind == STOCK_READ:
        assert isinstance(command, commands.ReadStock)
        return Applied(_stock(command, reply, moment))
    if kind == SWEPT:
        _, expired, purged, lateness_ms, more, next_ms = reply
        return Applied(model.Swept(expired, purged, lateness_ms, more, next_ms or None))
    raise AssertionError(f"a kind of reply that no script makes: {kind!r}")


def _detail(wire: dict[str, Any]) -> dict[str, Any]:
    """In a fixed order of members, so that a refusal reads the same each time: a Lua table has none."""
    detail = {name: wire[name] for name in sorted(wire)}
    if "lines" in detail:
        names = ("sku", "pool", "requested", "sellable")
        detail["lines"] = [dict(zip(names, line, strict=True)) for line in detail["lines"]]
    return detail


def _held_partly(command: commands.Hold, digest: str, reply: Sequence[Any], moment: Moment) -> model.Hold:
    _, seq, expires_ms, granted = reply
    partition, now_ms, epoch = moment[:3]
    lines = tuple(
        HoldLine(sku, pool, quantity, 0, 0, requested)
        for (sku, requested, pool), quantity in zip(command.lines, granted, strict=True)
    )
    return model.Hold(
        hold_id(partition, digest, seq), HoldState.HELD, lines, command.buyer or None, now_ms, expires_ms,
        None, None, None, False, command.metadata or None, partition, epoch, seq,
    )  # fmt: skip


def _hold(reply: Sequence[Any], partition: str) -> model.Hold:
    (_, _, digest, made_seq, state, created_ms, expires_ms, ended_ms, buyer, reference, reason, reacquired, metadata,
     lines, epoch, seq) = reply  # fmt: skip
    return model.Hold(
        hold_id(partition, digest, made_seq), _STATES[state], tuple(_hold_line(*line) for line in lines), buyer or None,
        created_ms, expires_ms, ended_ms or None, reference or None, reason or None, bool(reacquired), metadata or None,
        partition, epoch, seq,
    )  # fmt: skip


def _hold_line(
    sku: str, pool: str, quantity: int, committed: int = 0, released: int = 0, _given_back: int = 0,
    requested: int | bool = False,
) -> HoldLine:  # fmt: skip
    return HoldLine(sku, pool, quantity, committed, released, requested or None)


def _stock(command: commands.ReadStock, reply: Sequence[Any], moment: Moment) -> model.Stock:
    # The seq of the read itself: the rest of its batch may have moved the partition on.
    _, counters, details, seq = reply
    available, held, committed, damaged, in_transit, safety_stock, oversell_allowance = counters
    partition, epoch = moment.partition, moment.epoch
    return model.Stock(
        command.sku, command.pool, available, held, committed, damaged, in_transit, safety_stock, oversell_allowance,
        partition, epoch, seq, moment.now_ms, policy(command.sku, details, False, partition, epoch, seq),
    )  # fmt: skip


def policy(sku: str, details: dict[str, Any], created: bool, partition: str, epoch: int, seq: int) -> model.Policy:
    """A policy from its form in replies and journal (lua/verbs/policy.lua)."""
    pools = {name: PoolPolicy(*values) for name, values in sorted(details["pools"].items())}
    said = details.get
    return model.Policy(
        sku, said("class"), said("hold_ttl_ms"), said("hold_ttl_max_ms"), said("max_per_buyer"), said("opens_at_ms"),
        said("closes_at_ms"), said("partition_key"), said("durability"), pools, created, partition, epoch,
        seq, details["counted"], said("moves") or 0,
    )  # fmt: skip


def decode_entry(wire: Sequence[Any], partition: str, epoch: int, seq: int, at_ms: int, chain: str) -> Entry:
    """An entry from its form in replies and journal (lua/include/journal.lua)."""
    (kind, digest, made_seq, key, mark, buyer, expires_ms, reference, reason, shortfall, changes, details,
     movement_hold) = wire  # fmt: skip
    return Entry(
        partition, epoch, seq, at_ms, kind, hold_id(partition, digest, made_seq) if digest else movement_hold or None,
        key or None, mark or None, buyer or None, expires_ms or None, reference or None, reason or None,
        shortfall or None, tuple([PoolChange(*change) for change in changes]), details or None, chain,
    )  # fmt: skip
