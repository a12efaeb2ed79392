"""Histories of what can be asked of the log, drawn from a seed, and two hands that carry them out: the model's and PostgreSQL's.

Decides what is worth asking: owners that write, resend, leave gaps, contradict themselves and write after their end; successors
that adopt; strangers; ends; calls that another connection holds. The two hands must give the same answers and leave the same
rows; transaction ids are compared by their order.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

import asyncpg
import msgspec

from app.calls.store import CREATE_CALLS, GRANT_EPOCHS
from app.clock import ms_of
from app.log.append import APPEND, APPEND_CONTROL
from regions.wire.ids import uuid7
from tests.simulation.statements import Statements
from tests.simulation.tables import Row, Tables, Txn

BEGAN = datetime(2025, 10, 9, 8, 0, tzinfo=UTC)
TYPES = (
    "speech.started",
    "playback.done",
    "call.answered",
    "call.reconnecting",
    "call.reconnected",
    "call.moved",
    "turn.ended",
)
REASONS = ("caller_hung_up", "ended_by_api", "no_answer", "edge_lost", "canceled", "busy")
EDGES = tuple(uuid7(1_700_000_000_000, i) for i in range(1, 5))
INCARNATIONS = tuple(UUID(int=(i + 1) << 64) for i in range(4))


@dataclass(frozen=True, slots=True)
class Op:
    """One statement. `held`: calls whose rows another connection has locked meanwhile."""

    text: str
    args: tuple[Any, ...]
    held: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class History:
    number: int
    project: UUID
    webhook: UUID
    calls: tuple[UUID, ...]
    ops: tuple[Op, ...]


class Draw:
    """Draws one history. It keeps in mind what the owners have written, so that they can repeat themselves."""

    def __init__(self, number: int) -> None:
        self._chance = random.Random(number * 7 + 5)
        self._number = number
        self._ids = 0
        self._now = BEGAN
        self.project = self._id()
        self.webhook = self._id()
        self._calls: list[UUID] = []
        self._grants: dict[UUID, list[int]] = {}
        """Call → the edge of each epoch."""
        self._last: dict[tuple[UUID, int], int] = {}
        self._said: dict[tuple[UUID, int, int], tuple[Any, ...]] = {}
        self._keys: list[str] = []

    def history(self) -> History:
        ops = [self._create()]
        for _ in range(self._chance.randint(6, 22)):
            draw = self._chance.random()
            if draw < 0.08:
                ops.append(self._create())
            elif draw < 0.18:
                ops.append(self._control())
            elif draw < 0.26:
                ops.append(self._grant())
            else:
                ops.append(self._append())
        return History(self._number, self.project, self.webhook, tuple(self._calls), tuple(ops))

    def _id(self) -> UUID:
        self._ids += 1
        return uuid7(1_760_000_000_000 + self._ids, self._number << 20 | self._ids)

    def _later(self) -> datetime:
        self._now += timedelta(milliseconds=self._chance.randint(0, 400))
        return self._now

    def _create(self) -> Op:
        """One or two calls; at times under a key that was used before."""
        chance = self._chance
        rows = []
        for _ in range(chance.choice((1, 1, 2))):
            call = self._id()
            edges = chance.sample(range(3), chance.randint(1, 3))
            key = (
                chance.choice(self._keys)
                if self._keys and chance.random() < 0.2
                else f"k{self._number}-{self._ids}"
            )
            if key in [r[0] for r in rows]:
                continue
            if key not in self._keys:
                self._keys.append(key)
                self._calls.append(call)
                self._grants[call] = list(edges)
            hook = self.webhook if chance.random() < 0.5 else None
            at = self._later()
            rows.append(
                (
                    key,
                    b"body",
                    call,
                    self._id(),
                    "{}",
                    "{}",
                    "{}",
                    "us-east",
                    [EDGES[e] for e in edges],
                    [INCARNATIONS[e] for e in edges],
                    hook,
                    60,
                    at,
                    at + timedelta(seconds=60),
                    '{"region":"us-east"}',
                    b"created",
                    at,
                    None,
                    b"wrapped",
                    None,
                )
            )
        return Op(CREATE_CALLS, (self.project, "route", self._now, rows, None))

    def _control(self) -> Op:
        chance = self._chance
        final = chance.random() < 0.4
        data = msgspec.json.encode({"end_reason": chance.choice(REASONS)}) if final else b'{"k":1}'
        return Op(
            APPEND_CONTROL,
            (
                self.project if chance.random() < 0.93 else self._id(), self._any_call(), "control", chance.choice(("a", "b", "end")),
                self._id(), "call.ended" if final else chance.choice(("turn.ended", "call.ringing")), self._later(),
                data.decode(), None, chance.choice((b"one", b"two")),
            ),
        )  # fmt: skip

    def _grant(self) -> Op:
        call = self._any_call()
        edges = [self._chance.randrange(3) for _ in range(self._chance.randint(1, 3))]
        if call in self._grants:
            # where the call has ended nothing is granted; then the epochs below are simply refused
            self._grants[call] += edges
        return Op(
            GRANT_EPOCHS,
            (self.project, call, [EDGES[e] for e in edges], [INCARNATIONS[e] for e in edges], self._later()),
        )

    def _any_call(self) -> UUID:
        return self._chance.choice(self._calls) if self._chance.random() < 0.96 else self._id()

    # ------------------------------------------------------------------------------------------------- appends

    def _append(self) -> Op:
        chance = self._chance
        calls = list(dict.fromkeys(self._any_call() for _ in range(chance.choice((1, 1, 1, 2, 3)))))
        epochs = {
            call: chance.randint(1, len(self._grants.get(call, [0])) + (chance.random() < 0.05))
            for call in calls
        }
        owner = self._owner(calls[0], epochs[calls[0]])
        rows: list[tuple[Any, ...]] = []
        for call in calls:
            rows += self._run(call, epochs[call])
        if chance.random() < 0.1:
            chance.shuffle(rows)
        held = tuple(c for c in calls if c in self._grants and chance.random() < 0.1)
        edge, incarnation = EDGES[owner], INCARNATIONS[owner]
        if chance.random() < 0.05:
            incarnation = INCARNATIONS[3]
        return Op(APPEND, (edge, incarnation, f"region-{owner}", rows), held)

    def _owner(self, call: UUID, epoch: int) -> int:
        grants = self._grants.get(call, [0])
        return (
            grants[epoch - 1]
            if epoch <= len(grants) and self._chance.random() < 0.9
            else self._chance.randrange(4)
        )

    def _run(self, call: UUID, epoch: int) -> list[tuple[Any, ...]]:
        """From where the owner stands, from before it, or from beyond; dense, or not."""
        chance = self._chance
        last = self._last.get((call, epoch), 0)
        first = max(
            1, last + 1 - chance.choice((0, 0, 0, 0, 1, 2, 3)) + chance.choice((0, 0, 0, 0, 0, 0, 1, 2))
        )
        if chance.random() < 0.02:
            first = chance.choice((0, -1))
        numbers = list(range(first, first + chance.randint(1, 4)))
        if chance.random() < 0.06 and len(numbers) > 1:
            numbers[-1] += chance.choice((1, -1))
        rows = [self._event(call, epoch, n, newest=n == numbers[-1]) for n in numbers]
        self._last[(call, epoch)] = max(last, numbers[-1])
        if chance.random() < 0.02:
            rows.append(self._event(call, epoch + 1, numbers[-1] + 1, newest=False))
        return rows

    def _event(self, call: UUID, epoch: int, n: int, *, newest: bool) -> tuple[Any, ...]:
        """The same as before where the number was used, but for a contradiction now and then."""
        chance = self._chance
        known = self._said.get((call, epoch, n))
        if known is not None and chance.random() < 0.95:
            return known
        origin_epoch = origin_n = None
        earlier = [k for k in self._said if k[0] == call and k[1] < epoch]
        if earlier and chance.random() < 0.45:
            source = chance.choice(earlier)
            told = self._said[source]
            origin_epoch, origin_n = source[1], source[2]
            if told[9] is not None:
                origin_epoch, origin_n = told[9], told[10]
            id_, type_, at, data, hash_ = told[3], told[4], told[5], told[6], told[8]
            if chance.random() < 0.05:
                hash_ = b"other"
        else:
            id_, type_, at = self._id(), chance.choice(TYPES), ms_of(self._later())
            data = '{"x":1}'
            if (newest and chance.random() < 0.12) or chance.random() < 0.01:
                type_, data = (
                    "call.ended",
                    msgspec.json.encode({"end_reason": chance.choice(REASONS)}).decode(),
                )
            elif chance.random() < 0.08:
                type_, data = "events.lost", self._lost(epoch, n)
            hash_ = id_.bytes[-8:]
        content = type_ == "turn.ended"
        row = (
            call, epoch, n, id_, type_, at, None if content else data, b"sealed" if content else None,
            hash_, origin_epoch, origin_n,
        )  # fmt: skip
        self._said[(call, epoch, n)] = row
        return row

    def _lost(self, epoch: int, n: int) -> str:
        chance = self._chance
        lost = {"epoch": epoch, "from_n": max(1, n - chance.randint(0, 2)), "to_n": n}
        if chance.random() < 0.2:
            lost[chance.choice(("epoch", "from_n", "to_n"))] = chance.choice((0, n + 1, 99))
        return msgspec.json.encode(lost).decode()


class Hand(Protocol):
    """Carries out operations on one log, and shows what came of them."""

    async def begin(self, history: History) -> None: ...
    async def do(self, op: Op) -> list[tuple[Any, ...]]: ...
    async def rows(self, history: History) -> dict[str, list[tuple[Any, ...]]]: ...


SHOWN = {
    "calls": (
        "id", "state", "epoch", "epoch_granted", "grant_edges", "grant_incarnations", "grants_expire_at", "n", "seq", "feed_xid",
        "region", "edge_id", "answered_at", "ended_at", "end_reason",
    ),
    "events": (
        "call_id", "seq", "id", "type", "epoch", "source", "source_key", "origin_epoch", "origin_n", "region", "at", "data",
        "content", "hash", "feed_xid",
    ),
    "late": ("call_id", "origin_epoch", "origin_n", "id", "type", "edge_id", "region", "hash"),
    "deliveries": ("call_id", "webhook_id", "seq", "state"),
}  # fmt: skip
_TABLES = {"late": "late_events"}


def _shown(table: str, rows: list[Any]) -> list[tuple[Any, ...]]:
    found = [tuple(_plain(row[c], c) for c in SHOWN[table]) for row in rows]
    return sorted(found, key=repr)


def _plain(value: Any, column: str) -> Any:
    if column == "data" and value is not None:
        return msgspec.json.decode(value)
    return tuple(value) if isinstance(value, list | tuple) else value


def by_order(rows: dict[str, list[tuple[Any, ...]]]) -> dict[str, list[tuple[Any, ...]]]:
    """With transaction ids replaced by their rank: two logs never have the same ones."""
    at = {t: SHOWN[t].index("feed_xid") for t in ("calls", "events")}
    xids = sorted({row[at[t]] for t in at for row in rows[t]})
    rank = {xid: i for i, xid in enumerate(xids)}
    ranked = dict(rows)
    for table, i in at.items():
        ranked[table] = sorted(((*r[:i], rank[r[i]], *r[i + 1 :]) for r in rows[table]), key=repr)
    return ranked


def _answer(text: str, rows: list[Any]) -> list[tuple[Any, ...]]:
    """Without transaction ids; that an answer has those of its rows is another test's."""
    return sorted((tuple(v for k, v in row.items() if k != "feed_xid") for row in rows), key=repr)


class ModelHand:
    def __init__(self, off: frozenset[str] = frozenset()) -> None:
        self._statements = Statements(off)
        self._tables = Tables()

    async def begin(self, history: History) -> None:
        self._tables = Tables()
        row = {
            "id": history.webhook, "project_id": history.project, "scope": "project", "enabled": True, "types": None,
        }  # fmt: skip
        self._tables.apply([("webhooks", history.webhook, row)])

    async def do(self, op: Op) -> list[tuple[Any, ...]]:
        tables = self._tables
        other = tables.begin(BEGAN)
        for call in op.held:
            tables.try_lock(other, "calls", call)
        txn: Txn = tables.begin(BEGAN)
        try:
            answer = self._statements.run(op.text, tables, txn, op.args)
            tables.apply(txn.writes)
        finally:
            tables.end(txn)
            tables.end(other)
        return _answer(op.text, answer)

    async def rows(self, history: History) -> dict[str, list[tuple[Any, ...]]]:
        found: dict[str, list[Row]] = {}
        for table in SHOWN:
            key = "id" if table == "calls" else "call_id"
            found[table] = [r for r in self._tables.rows[table].values() if r[key] in history.calls]
        return {table: _shown(table, rows) for table, rows in found.items()}


class PostgresHand:
    """`one` asks, `two` holds rows meanwhile."""

    def __init__(self, one: asyncpg.Connection, two: asyncpg.Connection) -> None:
        self._one = one
        self._two = two

    async def begin(self, history: History) -> None:
        await self._one.execute(
            "insert into vx.projects (id, name, mode) values ($1, 'p', 'live')", history.project
        )
        await self._one.execute(
            "insert into vx.webhooks (id, project_id, url, secrets, local_targets)"
            " values ($1, $2, 'https://x.example.com', '[]', false)",
            history.webhook,
            history.project,
        )

    async def do(self, op: Op) -> list[tuple[Any, ...]]:
        if not op.held:
            return _answer(op.text, await self._ask(op))
        async with self._two.transaction():
            await self._two.fetch(
                "select 1 from vx.calls where id = any($1::uuid[]) for no key update", list(op.held)
            )
            return _answer(op.text, await self._ask(op))

    async def _ask(self, op: Op) -> list[Any]:
        try:
            return list(await self._one.fetch(op.text, *op.args))
        except asyncpg.PostgresError as error:
            return [{"error": type(error).__name__}]

    async def rows(self, history: History) -> dict[str, list[tuple[Any, ...]]]:
        found = {}
        for table in SHOWN:
            key = "id" if table == "calls" else "call_id"
            statement = f"select * from vx.{_TABLES.get(table, table)} where {key} = any($1::uuid[])"
            found[table] = _shown(table, await self._one.fetch(statement, list(history.calls)))
        return found


@dataclass(frozen=True, slots=True)
class Disagreement:
    history: int
    where: str
    model: Any
    postgres: Any


async def compare(number: int, model: Hand, postgres: Hand) -> Disagreement | None:
    """One history on both: the first answer, or the rows at the end, that differ."""
    history = Draw(number).history()
    await model.begin(history)
    await postgres.begin(history)
    for i, op in enumerate(history.ops):
        mine, theirs = await model.do(op), await postgres.do(op)
        if mine != theirs:
            return Disagreement(number, f"operation {i}: {op.text[:60]}", mine, theirs)
    mine_rows, their_rows = by_order(await model.rows(history)), by_order(await postgres.rows(history))
    for table in SHOWN:
        if mine_rows[table] != their_rows[table]:
            differ = [(m, p) for m, p in zip(mine_rows[table], their_rows[table], strict=False) if m != p]
            return Disagreement(
                number,
                f"rows of {table}",
                *(differ[0] if differ else (len(mine_rows[table]), len(their_rows[table]))),
            )
    return None
