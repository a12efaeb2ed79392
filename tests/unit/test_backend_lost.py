"""When a lost backend is dialled, what is heard meanwhile, and what of the caller's is given again: the pure parts of it."""

from __future__ import annotations

import audioop
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regions.agents.connection import LOST
from regions.agents.redial import FIRST_WITHIN_MS, PAUSE_MAX_MS, STEADY_MS, Redial
from regions.edge.agent_leg import Dialled
from regions.edge.backend_counts import BackendCounts
from regions.edge.caller_leg import CallerLeg
from regions.edge.journal import Journal
from regions.edge.line import Carried
from regions.edge.listening import BEFORE_FRAMES, CATCH_UP_FRAMES, HELD_FRAMES_MAX, Listening
from regions.edge.recall import Recall
from regions.edge.returning import Returning
from regions.edge.speech import AgentSpeech
from regions.media.caller_buffer import CallerBuffer
from regions.media.codecs import SILENCE, Ear
from regions.media.hold_sound import BEGINS_AFTER_MS, FRAMES, LISTENS_AFTER_MS, HoldSound
from regions.wire.media import Position
from regions.wire.snapshot import Turn
from regions.wire.ticket import Grant, Reconnect
from regions.wire.uplink import AppendStatus

# -------------------------------------------------------------------------------------------------------------- redial


@given(st.integers(0, 120_000), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4_000)), max_size=200))
def test_no_pause_reaches_past_the_deadline_and_none_is_long(
    deadline_ms: int, attempts: list[tuple[float, int]]
) -> None:
    redial, now = Redial(deadline_ms), 1_000
    redial.lost(now)
    for draw, took_ms in attempts:
        pause_ms = redial.pause_ms(now, draw)
        if pause_ms is None:
            assert now >= 1_000 + deadline_ms
            return
        assert 0 <= pause_ms <= PAUSE_MAX_MS
        assert now + pause_ms <= 1_000 + deadline_ms
        assert redial.attempts > 1 or pause_ms <= FIRST_WITHIN_MS
        now += int(pause_ms) + took_ms


def test_pauses_grow_and_are_cut_by_up_to_a_half() -> None:
    longest, shortest = [], []
    for draw, pauses in ((0.0, longest), (1.0, shortest)):
        redial = Redial(120_000)
        redial.lost(0)
        pauses += [redial.pause_ms(0, draw) for _ in range(8)]
    assert longest == [0, 100, 200, 400, 800, 1_600, 2_000, 2_000]
    assert shortest == [50, 50, 100, 200, 400, 800, 1_000, 1_000]


def test_one_that_falls_over_each_time_has_one_deadline_and_one_that_stayed_a_new_one() -> None:
    redial = Redial(10_000)
    redial.lost(0)
    redial.pause_ms(0, 0)
    redial.up(100)
    redial.lost(100 + STEADY_MS - 1)
    assert (redial.attempts, redial.away_ms(100 + STEADY_MS)) == (1, 100 + STEADY_MS)
    redial.up(6_000)
    redial.lost(6_000 + STEADY_MS)
    assert (redial.attempts, redial.away_ms(6_000 + STEADY_MS)) == (0, 0)
    assert redial.pause_ms(6_000 + STEADY_MS, 0) == 0


def test_a_new_owner_dials_once_whatever_the_deadline() -> None:
    redial = Redial(0)
    redial.lost(0, sure=1)
    assert redial.pause_ms(5, 1.0) == 0
    assert redial.pause_ms(6, 1.0) is None


# ----------------------------------------------------------------------------------------------------------- the sound


def test_the_sound_is_soft_begins_and_ends_without_a_click_and_is_mostly_silence() -> None:
    assert {len(f) for f in FRAMES} == {160}
    pcm = [Ear()(f) for f in FRAMES]
    assert max(audioop.max(p, 2) for p in pcm) < 2_500
    assert sum(audioop.rms(p, 2) > 100 for p in pcm) < len(pcm) // 5
    samples = b"".join(pcm)
    values = [int.from_bytes(samples[i : i + 2], "little", signed=True) for i in range(0, len(samples), 2)]
    assert max(abs(b - a) for a, b in zip(values, values[1:] + values[:1], strict=True)) < 1_200


def test_it_is_heard_once_nothing_else_was_for_a_while_and_until_a_new_backend_speaks() -> None:
    sound = HoldSound("tone")
    assert sound.frame(0) is None, "there is a backend"
    sound.lost(1_000)
    sound.spoken(1_200, new=False)
    assert sound.frame(1_200 + BEGINS_AFTER_MS - 1) is None, "the dead one was just heard"
    assert [sound.frame(1_200 + BEGINS_AFTER_MS + 20 * i) for i in range(101)] == [*FRAMES, FRAMES[0]]
    sound.up(5_000)
    assert sound.frame(5_020) is not None, "it has not spoken"
    sound.spoken(5_040, new=True)
    assert sound.frame(9_000) is None
    sound.lost(10_000)
    assert sound.frame(10_000 + BEGINS_AFTER_MS) == FRAMES[0]


def test_a_backend_that_says_nothing_listens_and_silence_is_silent() -> None:
    sound, silence = HoldSound("tone"), HoldSound("silence")
    for each in (sound, silence):
        each.lost(0)
    assert (silence.frame(BEGINS_AFTER_MS), sound.frame(BEGINS_AFTER_MS)) == (None, FRAMES[0])
    sound.up(1_000)
    assert sound.frame(1_000 + LISTENS_AFTER_MS - 1) is not None
    assert sound.frame(1_000 + LISTENS_AFTER_MS) is None
    assert sound.frame(1_000 + LISTENS_AFTER_MS + 20) is None


def test_a_backend_that_is_back_before_it_begins_keeps_it_from_beginning() -> None:
    sound = HoldSound("tone")
    sound.lost(0)
    sound.up(BEGINS_AFTER_MS - 1)
    assert sound.frame(BEGINS_AFTER_MS + 100) is None, "it takes its time to speak"
    sound.lost(1_000)
    assert sound.frame(1_000 + BEGINS_AFTER_MS) == FRAMES[0]


class Caller:
    """Nobody is there to be told."""

    def notice(self, type_: str, data: dict[str, object]) -> None:
        return


def test_the_sound_ends_with_the_first_word_of_the_new_backend_and_not_with_the_last_of_the_dead_one() -> (
    None
):
    journal = Journal("call_1", 1, lambda: "", lambda: None)
    counts = BackendCounts()
    grant = Grant(epoch=1, edge="e", incarnation="i", region="lab", url="")
    returning = Returning(journal, Caller(), grant, Reconnect(), counts)  # type: ignore[arg-type]
    returning.caller_heard = True
    returning.agent_lost(LOST, 3, 0)
    returning.played(3, 400)
    assert returning.sound(BEGINS_AFTER_MS) is None
    assert returning.sound(400 + BEGINS_AFTER_MS) is not None
    returning.agent_up(Dialled(resumed=True), {}, 1_000)
    returning.given(1_000)
    returning.played(3, 1_020)
    assert returning.sound(1_020 + BEGINS_AFTER_MS) is not None, "what the dead one had left"
    assert [e.type for e in journal.outbox.unacked][-1] == "agent.connected"
    returning.played(4, 1_700)
    assert returning.sound(1_700 + BEGINS_AFTER_MS) is None
    assert [e.type for e in journal.outbox.unacked][-1] == "call.reconnected"
    assert counts.came_to["reconnected"] == 1


def test_a_backend_that_comes_and_goes_is_one_absence_until_audio_flows_both_ways() -> None:
    journal = Journal("call_1", 1, lambda: "", lambda: None)
    grant = Grant(epoch=1, edge="e", incarnation="i", region="lab", url="")
    returning = Returning(journal, Caller(), grant, Reconnect(), BackendCounts())  # type: ignore[arg-type]
    returning.caller_heard = True
    for at_ms in (0, 100, 200):
        returning.agent_lost(LOST, 0, at_ms)
        returning.agent_up(Dialled(resumed=True), {}, at_ms + 50)
        returning.given(at_ms + 60)
    kinds = [e.type for e in journal.outbox.unacked]
    assert kinds == ["call.reconnecting", *["agent.connected"] * 3]
    returning.agent_lost(LOST, 0, 300)
    returning.agent_up(Dialled(resumed=True), {}, 350)
    returning.played(1, 400)
    assert "call.reconnected" not in [e.type for e in journal.outbox.unacked], "given to the one before"
    returning.given(420)
    assert [e.type for e in journal.outbox.unacked][-1] == "call.reconnected"


def test_a_backend_that_listens_is_back_after_a_second_of_the_callers_audio() -> None:
    journal = Journal("call_1", 1, lambda: "", lambda: None)
    grant = Grant(epoch=1, edge="e", incarnation="i", region="lab", url="")
    returning = Returning(journal, Caller(), grant, Reconnect(), BackendCounts())  # type: ignore[arg-type]
    returning.agent_lost(LOST, 0, 0)
    returning.agent_up(Dialled(resumed=True), {}, 100)
    returning.given(5_000)
    assert [e.type for e in journal.outbox.unacked][-1] == "agent.connected", "the caller was not heard"
    returning.caller_heard = True
    returning.agent_lost(LOST, 0, 5_100)
    returning.agent_up(Dialled(resumed=True), {}, 5_200)
    returning.given(6_199)
    assert [e.type for e in journal.outbox.unacked][-1] == "agent.connected"
    returning.given(6_200)
    assert [e.type for e in journal.outbox.unacked][-1] == "call.reconnected"


# ------------------------------------------------------------------------------------------------------------ listening


@pytest.fixture
def heard() -> Listening:
    return Listening(CallerBuffer())


def quiet(number: int) -> bytes:
    return bytes([0xFF - (number >> 4 & 0x0F), 0xFF - (number & 0x0F)]) * 80


def loud(number: int) -> bytes:
    return bytes([number]) * 160


def hear(listening: Listening, frame: bytes) -> None:
    """Loud is a voice, at once."""
    listening.voice(audioop.max(Ear()(frame), 2) > 1_000)
    listening.hear(frame)


def turns(listening: Listening, frames: list[bytes], *, backend: bool = True) -> list[bytes]:
    """One frame in each turn; what the agent was given."""
    given: list[bytes] = []
    for frame in frames:
        hear(listening, frame)
        given += listening.due() if backend else []
    return given


def drain(listening: Listening) -> list[bytes]:
    given: list[bytes] = []
    while due := listening.due():
        assert len(due) <= CATCH_UP_FRAMES
        given += due
    return given


def test_what_is_said_while_there_is_no_backend_is_given_faster_afterwards_in_its_order(
    heard: Listening,
) -> None:
    frames = [quiet(n) for n in range(10)]
    assert turns(heard, frames, backend=False) == []
    assert heard.waited() == {"replayed_ms": 200, "dropped_ms": 0}
    assert len(turns(heard, [quiet(10)])) == CATCH_UP_FRAMES
    assert drain(heard) == [quiet(n) for n in range(4, 11)]
    assert turns(heard, [quiet(11), quiet(12)]) == [quiet(11), quiet(12)], "caught up"


def test_what_has_piled_up_meanwhile_leaves_no_delay_behind(heard: Listening) -> None:
    buffer = heard._buffer
    frames = [quiet(n) for n in range(16)]
    for frame in frames[:6]:
        buffer.push(frame)
    for frame in heard.next():
        hear(heard, frame)
    assert drain(heard) == frames[:1], "early, and given in its time"
    turns(heard, frames[1:6], backend=False)
    buffer.push(b"".join(frames[6:]))
    came = heard.next()
    assert len(came) == 15, "all that is there"
    for frame in came:
        hear(heard, frame)
    drain(heard)
    assert buffer.pop() is None


def test_the_newest_five_seconds_are_kept_and_the_rest_is_counted(heard: Listening) -> None:
    turns(heard, [SILENCE] * 30 + [quiet(5)] * HELD_FRAMES_MAX, backend=False)
    assert heard.waited() == {"replayed_ms": HELD_FRAMES_MAX * 20, "dropped_ms": 600}
    assert drain(heard) == [quiet(5)] * HELD_FRAMES_MAX
    assert heard.waited() == {"replayed_ms": 0, "dropped_ms": 0}


def test_a_turn_that_the_dead_backend_had_not_answered_is_given_again(heard: Listening) -> None:
    turns(heard, [SILENCE] * 100)
    turn = [loud(n) for n in range(1, 41)] + [quiet(n) for n in range(20)]
    turns(heard, turn)
    heard.again()
    turns(heard, [quiet(77)], backend=False)
    assert drain(heard) == [SILENCE] * BEFORE_FRAMES + turn + [quiet(77)]


def test_one_that_was_answered_is_not_and_what_was_begun_since_is(heard: Listening) -> None:
    turns(heard, [loud(n) for n in range(1, 41)] + [quiet(1)] * 20)
    heard.answered()
    heard.again()
    assert drain(heard) == []
    turns(heard, [loud(1)] * 10 + [quiet(1)] * 30 + [loud(2)] * 10)
    heard.answered()
    heard.again()
    assert drain(heard) == [quiet(1)] * BEFORE_FRAMES + [loud(2)] * 10


def test_what_was_answered_is_not_given_as_the_lead_in_of_the_next_turn(heard: Listening) -> None:
    """A word that was answered just before: a backend that hears it twice does twice what it asks for."""
    turns(heard, [quiet(1)] * 30 + [loud(1)] * 2 + [quiet(2)] * 2)
    heard.answered()
    turns(heard, [loud(3)] * 10)
    heard.again()
    assert drain(heard) == [loud(3)] * 10


def test_a_turn_that_nobody_answers_for_long_is_let_go(heard: Listening) -> None:
    turns(heard, [loud(1)] * 10 + [quiet(1)] * (HELD_FRAMES_MAX + 1))
    heard.again()
    assert drain(heard) == []


def test_any_history_gives_each_frame_in_order_and_at_most_twice(heard: Listening) -> None:
    """Twice only where a backend was lost in between."""
    rng = random.Random(3)
    for _ in range(30):
        there, lost, given_ = True, 0, []
        heard._held.clear()
        heard._given.clear()
        for n in range(400):
            if rng.random() < 0.02:
                there = not there
                if not there:
                    heard.again()
                    lost += 1
            elif rng.random() < 0.02:
                heard.answered()
            sound = loud(n % 100 + 1) if rng.random() < 0.5 else SILENCE
            hear(heard, sound[:150] + n.to_bytes(10, "big"))
            given_ += heard.due() if there else []
        numbers = [int.from_bytes(f[150:], "big") for f in given_]
        assert sum(b <= a for a, b in itertools.pairwise(numbers)) <= lost


# --------------------------------------------------------------------------------------------------------------- speech


def test_an_utterance_that_was_all_sent_is_said_and_one_that_was_not_is_cut_where_it_stops() -> None:
    speech = AgentSpeech()
    speech.announce("all of it", [])
    speech.push(SILENCE * 2)
    speech.end()
    speech.announce("not all of this", [])
    speech.push(SILENCE)
    speech.mark("of the dead one")
    speech.broken_off()
    assert speech.unheard() == [
        Turn(role="agent", text="all of it"),
        Turn(role="agent", text="not all of this", interrupted=True),
    ]
    speech.announce("a new one", [])
    speech.push(SILENCE)
    speech.end()
    facts, marks = [], []
    while speech.active:
        popped = speech.pop()
        if popped is not None:
            facts += [(t, d.get("utterance"), d.get("by")) for t, d in speech.facts(popped)]
            marks += popped.marks
    assert marks == []
    assert facts == [
        ("playback.started", 1, None),
        ("playback.done", 1, None),
        ("turn.ended", 1, None),
        ("playback.started", 2, None),
        ("playback.interrupted", 2, "agent_lost"),
        ("turn.interrupted", 2, None),
        ("playback.started", 3, None),
        ("playback.done", 3, None),
        ("turn.ended", 3, None),
    ]
    assert speech.unheard() == []


def test_a_text_whose_audio_never_came_is_not_the_next_backends() -> None:
    speech = AgentSpeech()
    speech.announce("never sent", [])
    speech.broken_off()
    assert speech.unheard() == []
    speech.push(SILENCE)
    speech.end()
    facts = []
    while speech.active:
        popped = speech.pop()
        facts += speech.facts(popped) if popped is not None else []
    assert [t for t, _ in facts] == ["playback.started", "playback.done"]


CUT = Position(utterance=2, offset_ms=1_500)
STOPPED = ("playback.interrupted", {"utterance": 2, "offset_ms": 1_500, "by": "edge_lost"})


@pytest.mark.parametrize(("text", "said"), [("", []), ("so far", ["turn.interrupted"])])
def test_what_an_edge_was_playing_when_it_died_was_interrupted_whether_it_had_a_text_or_not(
    text: str, said: list[str]
) -> None:
    speech = AgentSpeech()
    first, *rest = speech.cut_before(CUT, text, [])
    assert first == STOPPED
    assert [type_ for type_, _ in rest] == said
    assert AgentSpeech().cut_before(Position(), "nothing was being played", []) == []


def test_what_its_backend_had_named_is_interrupted_once_its_rest_does_not_come() -> None:
    speech, goes_on = AgentSpeech(), AgentSpeech()
    assert speech.cut_before(CUT, "", [], "u7") == goes_on.cut_before(CUT, "", [], "u7") == []
    assert goes_on.begin("u7", 1_500) == goes_on.settle() == []
    assert speech.begin("another", 0) == [STOPPED]


# ---------------------------------------------------------------------------------------------------------------- tools


class Backend:
    """The backend's side of a call, as `Recall` sees it: whoever is there hears what is said."""

    def __init__(self) -> None:
        self.connection: Backend | None = self
        self.told: list[tuple[str, object]] = []

    def send_text(self, type_: str, data: object) -> None:
        self.told.append((type_, data))


@pytest.mark.parametrize("lost", [False, True])
def test_a_tool_of_the_dead_backend_is_acknowledged_to_nobody(lost: bool) -> None:
    """Its successor may use the same ids."""
    journal = Journal("call_1", 1, iter(map(str, range(9))).__next__, lambda: None)
    backend = Backend()
    recall = Recall(journal, "call_1", None, backend, lambda: True)
    recall.on_text("tool.called", b'{"id":"t1","name":"pay","arguments":{}}', 0)
    if lost:
        recall.forget()
    recall.acknowledged(AppendStatus(call="call_1", epoch=1, status="durable", durable_n=1, seq=5, stored=1))
    acked = ("ack", {"type": "tool.called", "id": "t1", "seq": 5})
    assert backend.told == ([] if lost else [acked])
    assert [t.id for t in journal.turns] == ["t1"], "the conversation has it"


# --------------------------------------------------------------------------------------------------------------- counts


def test_metrics_say_how_backends_were_lost_and_how_long_callers_waited() -> None:
    counts = BackendCounts()
    counts.lost["lost"] += 2
    counts.over("reconnected", 0.2)
    counts.over("gave_up", 20.0)
    text = counts.exposition()
    assert 'voxplane_edge_backends_lost_total{why="lost"} 2\n' in text
    assert 'voxplane_edge_backends_lost_total{why="too_large"} 0\n' in text
    assert 'voxplane_edge_backend_absences_total{outcome="gave_up"} 1\n' in text
    assert 'voxplane_edge_backend_away_seconds_bucket{le="0.1"} 0\n' in text
    assert 'voxplane_edge_backend_away_seconds_bucket{le="0.25"} 1\n' in text
    assert 'voxplane_edge_backend_away_seconds_bucket{le="+Inf"} 1\n' in text
    assert (
        "voxplane_edge_backend_away_seconds_sum 0.200\nvoxplane_edge_backend_away_seconds_count 1\n" in text
    )


class _Port:
    def __init__(self) -> None:
        self.frames = 0
        self.carried, self.dtx = Carried(), False

    def report(self) -> None: ...

    def send_text(self, message: bytes) -> None: ...
    def silent(self) -> None:
        return

    def send_audio(self, frame: bytes) -> None:
        self.frames += 1

    def close(self) -> None: ...
    def cut(self, *, silent: bool) -> None: ...


@pytest.mark.parametrize("owns", [True, False])
def test_no_sound_is_sent_once_the_lease_is_over(owns: bool) -> None:
    """A process that was stopped goes on in the middle of a turn."""
    leg, port = CallerLeg(lambda: owns), _Port()
    leg.take(port, "mulaw", 8_000)
    leg.fill(SILENCE, stamp=1, now=20)
    assert port.frames == owns
