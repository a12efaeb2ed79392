"""What must hold of the client library's pure parts: the watch against a world of its own, the tries, the event stream."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from voxplane.attempts import PAUSE_S, RETRY_AFTER_MAX_S, ROUNDS, after
from voxplane.sse import EventStream
from voxplane.watch import (
    GIVE_UP_AFTER_MS,
    PREPARE_AFTER_MS,
    TAKE_AFTER_MS,
    TAKE_PATIENCE_MS,
    Action,
    AskTicket,
    GiveUp,
    LetGo,
    Prepare,
    Retry,
    State,
    Take,
    Watch,
)

quick = settings(max_examples=100, deadline=None)


@dataclass
class World:
    """Carries out what a watch says as the caller does, and holds it to its rules."""

    watch: Watch = field(default_factory=lambda: Watch([1, 2, 3], 1, 0))
    now: float = 0.0
    heard_ms: float = 0.0
    preparing: int | None = None
    answered: bool = False
    taking: int | None = None
    taken_ms: float = 0.0
    takes: list[int] = field(default_factory=list)
    asking: bool = False
    highest_grant: int = 3
    gave_up: bool = False

    def do(self, actions: list[Action], *, given_up_on: bool = False) -> None:
        assert not (self.gave_up and actions)
        for action in actions:
            match action:
                case Prepare(epoch):
                    assert self.taking is None and self.preparing is None
                    assert self.now - self.heard_ms >= PREPARE_AFTER_MS
                    assert self.watch.epoch < epoch <= self.highest_grant
                    self.preparing, self.answered = epoch, False
                case LetGo(epoch):
                    assert epoch == self.preparing
                    self.preparing = None
                case Take(epoch, reason):
                    self._take(epoch, reason, given_up_on)
                case Retry(epoch):
                    assert epoch == self.watch.epoch and self.taking is None
                case AskTicket():
                    assert not self.asking and self.watch.state is State.TAKING
                    self.asking = True
                case GiveUp():
                    self.gave_up = True
                    assert self.watch.state is State.OVER

    def _take(self, epoch: int, reason: str, given_up_on: bool) -> None:
        assert epoch > max([*self.takes, self.watch.epoch]) and epoch <= self.highest_grant
        if self.taking is not None:
            assert given_up_on or self.now - self.taken_ms >= TAKE_PATIENCE_MS
        if reason == "silent":
            assert epoch == self.preparing and self.answered and self.now - self.heard_ms >= TAKE_AFTER_MS
        self.takes.append(epoch)
        self.taking, self.taken_ms, self.preparing = epoch, self.now, None

    def happen(self, what: str, n: int) -> None:
        epoch = self.watch.epoch
        match what:
            case "heard" if self.watch.state in (State.ATTACHED, State.SUSPICIOUS):
                self.heard_ms = self.now
                self.do(self.watch.heard(self.now))
            case "closed":
                self.do(self.watch.closed(self.now), given_up_on=True)
            case "prepared" if self.preparing is not None:
                self.answered = True
                self.do(self.watch.prepared(self.preparing, self.now))
            case "prepare failed" if self.preparing is not None:
                failed, self.preparing = self.preparing, None
                self.do(self.watch.failed(failed, self.now))
            case "take failed" if self.taking is not None:
                self.do(self.watch.failed(self.taking, self.now), given_up_on=True)
            case "taken" if self.taking is not None and self.watch.accepts(self.taking):
                self.do(self.watch.attached(self.taking, self.now))
                assert (self.watch.state, self.watch.epoch) == (State.ATTACHED, self.taking)
                self.taking, self.asking, self.heard_ms = None, False, self.now
            case "resumed" if self.taking is None and self.watch.state is State.SUSPICIOUS:
                self.heard_ms = self.now
                self.do(self.watch.attached(epoch, self.now))
                assert (self.watch.state, self.watch.epoch, self.preparing) == (State.ATTACHED, epoch, None)
            case "late":
                late = 1 + n % self.highest_grant
                if not self.watch.accepts(late):
                    state = self.watch.state
                    assert self.watch.attached(late, self.now) == []
                    assert (self.watch.state, self.watch.epoch) == (state, epoch)
            case "granted" if self.asking:
                self.asking = False
                self.highest_grant += 2
                fresh = [self.highest_grant - 1, self.highest_grant]
                self.do(self.watch.granted(fresh, self.now), given_up_on=True)
            case "not granted" if self.asking:
                self.asking = False
                self.do(self.watch.not_granted(self.now), given_up_on=True)
            case _:
                self.do(self.watch.tick(self.now))


HAPPENINGS = (
    "heard", "closed", "prepared", "prepare failed", "take failed", "taken", "resumed", "late", "granted", "not granted", "tick",
)  # fmt: skip


@quick
@given(st.lists(st.tuples(st.sampled_from(HAPPENINGS), st.integers(0, 700)), max_size=100))
def test_whatever_happens_there_is_one_take_at_a_time_and_the_epoch_never_falls(
    history: list[tuple[str, int]],
) -> None:
    world = World()
    for what, wait_ms in history:
        world.now += wait_ms
        epoch = world.watch.epoch
        world.happen(what, wait_ms)
        assert world.watch.epoch >= epoch
        assert world.watch.epoch in (1, *world.takes)
        assert (world.watch.state is State.TAKING) == (
            world.taking is not None or world.asking
        ) or world.gave_up


@quick
@given(
    st.lists(st.tuples(st.sampled_from(HAPPENINGS), st.integers(0, 700)), max_size=40), st.integers(10, 100)
)
def test_left_alone_it_always_comes_to_an_end(history: list[tuple[str, int]], step_ms: int) -> None:
    world = World()
    for what, wait_ms in history:
        world.now += wait_ms
        world.happen(what, wait_ms)
    for _ in range((GIVE_UP_AFTER_MS + 2_000) // step_ms + 1):
        world.now += step_ms
        world.do(world.watch.tick(world.now))
    assert world.watch.state is State.OVER


@quick
@given(
    st.integers(1, 4), st.lists(st.sampled_from((None, 200, 404, 429, 502, 503, 504)), min_size=20, max_size=20), st.booleans(),
    st.none() | st.floats(0, 1e6),
)  # fmt: skip
def test_tries_are_bounded_reach_every_url_and_never_repeat_what_is_not_safe(
    urls: int, statuses: list[int | None], safe: bool, retry_after_s: float | None
) -> None:
    url, tried = 0, []
    for attempt, status in enumerate(statuses):
        tried.append(url)
        following = after(attempt, url, urls, status=status, safe=safe, retry_after_s=retry_after_s)
        assert 0 <= following.pause_s <= max(RETRY_AFTER_MAX_S, PAUSE_S * 2**ROUNDS)
        if following.url_index is None:
            break
        assert 0 <= following.url_index < urls
        url = following.url_index
    assert len(tried) <= (urls * ROUNDS if safe else 1)
    if safe and all(s in (None, 502, 503, 504) for s in statuses[:urls]):
        assert set(tried[:urls]) == set(range(urls))


EVENT = st.dictionaries(st.text(max_size=5), st.text(max_size=12), max_size=3)


@quick
@given(st.lists(EVENT, max_size=8), st.sampled_from(("\n", "\r\n")), st.data())
def test_a_stream_cut_anywhere_and_taken_up_again_gives_every_event_once(
    events: list[dict[str, str]], end: str, data: st.DataObject
) -> None:
    blocks = [
        f": hello{end}id: {i}{end}data: {json.dumps(e, ensure_ascii=False)}{end}{end}".encode()
        for i, e in enumerate(events, 1)
    ]
    stream, got = EventStream(None), []
    while len(got) < len(events):
        done = int(stream.again().get("Last-Event-ID", "0"))
        assert done == len(got)
        rest = b"".join(blocks[done:])
        least = len(blocks[done])
        until = data.draw(st.integers(least, len(rest)))
        size = data.draw(st.integers(1, 30))
        for i in range(0, until, size):
            got += stream.feed(rest[i : min(i + size, until)])
    assert got == events
