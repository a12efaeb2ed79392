"""What the agent kit decides without anybody else: sound, both wires, what was heard of an utterance, the conversation, timing."""

from __future__ import annotations

import array
import audioop
import json
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regions.agents.dialect import (
    AgentAudio,
    AgentClear,
    AgentHangup,
    AgentMark,
    AgentText,
    AgentUtterance,
    Dialect,
)
from regions.agents.dialect import Cut as EdgeCut
from regions.agents.dialect import Start as EdgeStart
from regions.agents.native import NativeDialect
from regions.agents.twilio import TwilioDialect
from regions.wire.snapshot import Turn
from tests.support.agent_parts import tone
from voxplane.agent import Said, ToolUse, Word
from voxplane.agent.audio import Resampler, from_ulaw, to_ulaw
from voxplane.agent.history import ENTRIES_MAX, History
from voxplane.agent.ledger import Ledger, Outcome, Utterance
from voxplane.agent.recordings import Recordings
from voxplane.agent.streams import Feed, Sentences
from voxplane.agent.timing import Stopwatch
from voxplane.agent.wires import (
    IGNORED,
    Cut,
    Heard,
    Marked,
    Message,
    Pressed,
    Start,
    Started,
    Stopped,
    Told,
    UnknownWire,
    Wire,
    wire_of,
)

# --------------------------------------------------------------------------------------------------------- sound


def test_mu_law_is_that_of_the_standard() -> None:
    codes = bytes(range(256))
    assert from_ulaw(codes) == audioop.ulaw2lin(codes, 2)
    samples = array.array("h", range(-32_768, 32_768)).tobytes()
    ours, theirs = to_ulaw(samples), audioop.lin2ulaw(samples, 2)
    assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) <= 1
    assert ours[32_768:] == theirs[32_768:]
    assert to_ulaw(from_ulaw(codes)) == codes.replace(b"\x7f", b"\xff")


def level(pcm: bytes, rate_hz: int, hz: int) -> float:
    """How much of one frequency is in it, as an amplitude (Goertzel)."""
    samples = array.array("h", pcm)
    turn = 2 * math.pi * hz / rate_hz
    real = sum(s * math.cos(turn * i) for i, s in enumerate(samples))
    imaginary = sum(s * math.sin(turn * i) for i, s in enumerate(samples))
    return 2 * math.hypot(real, imaginary) / len(samples)


RATES = [
    (8_000, 16_000),
    (16_000, 8_000),
    (22_050, 8_000),
    (22_050, 16_000),
    (48_000, 16_000),
    (8_000, 48_000),
]


@pytest.mark.parametrize(("from_hz", "to_hz"), RATES)
def test_another_rate_keeps_the_tone_and_the_length(from_hz: int, to_hz: int) -> None:
    resampler = Resampler(from_hz, to_hz)
    out = resampler.feed(tone(500, from_hz, 1_000)) + resampler.flush()
    assert len(out) == pytest.approx(2 * to_hz // 2, abs=200)
    inner = out[2 * to_hz // 10 : -2 * to_hz // 10]
    assert level(inner[: 2 * to_hz // 4], to_hz, 1_000) == pytest.approx(8_000, rel=0.02)


def test_what_a_lower_rate_cannot_carry_does_not_come_back_as_another_tone() -> None:
    resampler = Resampler(16_000, 8_000)
    out = resampler.feed(tone(500, 16_000, 5_000))[1_000:]
    assert max(map(abs, array.array("h", out))) < 80


@given(st.lists(st.integers(0, 700), max_size=20), st.sampled_from(RATES))
def test_the_pieces_do_not_matter(cuts: list[int], rates: tuple[int, int]) -> None:
    noise = random.Random(1).randbytes(2_001)
    whole = Resampler(*rates)
    expected = whole.feed(noise[:2_000]) + whole.flush()
    pieces, found, at = Resampler(*rates), b"", 0
    for cut in cuts:
        found += pieces.feed(noise[at : min(at + cut, 2_000)])
        at = min(at + cut, 2_000)
    assert found + pieces.feed(noise[at:2_000]) + pieces.flush() == expected


def test_no_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="no sample rate"):
        Resampler(0, 8_000)


# --------------------------------------------------------------------------------------------------------- wires

TURNS = [Turn(role="caller", text="hi"), Turn(role="agent", text="hel", interrupted=True)]


def edges() -> list[tuple[Dialect, bool]]:
    twilio = TwilioDialect(stream_sid="MZ1", account_sid="AC1", call_sid="CA1")
    return [(NativeDialect(rate_hz=16_000), True), (twilio, False)]


def message(dialect: Dialect, raw: bytes) -> Message:
    """As a socket gives it."""
    return raw if dialect.binary and raw[:1] != b"{" else raw.decode()


def begun(dialect: Dialect, start: EdgeStart) -> tuple[Wire, Start]:
    first, *more = [message(dialect, m) for m in dialect.opening(start)]
    wire = wire_of(first)
    found = [wire.read(m) for m in (first, *more)][-1]
    assert isinstance(found, Started)
    return wire, found.start


@pytest.mark.parametrize("edge", edges(), ids=["native", "twilio"])
def test_what_an_edge_says_is_understood(edge: tuple[Dialect, bool]) -> None:
    dialect, native = edge
    told = EdgeStart(
        call="call_1", epoch=3, from_number="+1", to_number="+2", parameters={"shop": "4"}, turns=TURNS
    )
    wire, start = begun(dialect, told)
    assert (start.call, start.epoch, start.resumed) == ("call_1", 3, True)
    assert (start.from_number, start.to_number, start.parameters["shop"]) == ("+1", "+2", "4")
    assert [t["text"] for t in start.turns] == ["hi", "hel"]
    assert not any(name.startswith("voxplane_") for name in start.parameters)
    frame = tone(20, wire.rate_hz)
    sent = frame if native else to_ulaw(frame)
    heard = wire.read(message(dialect, dialect.audio(sent)))
    assert heard == Heard(frame if native else from_ulaw(sent))
    assert wire.read(message(dialect, dialect.dtmf("5"))) == Pressed("5")
    assert wire.read(message(dialect, dialect.mark("u1"))) == Marked("u1")
    assert wire.read(message(dialect, dialect.text("ack", {"id": "t"}))) == Told("ack", {"id": "t"})
    assert wire.read(message(dialect, dialect.stop())) == Stopped()


@pytest.mark.parametrize("edge", edges(), ids=["native", "twilio"])
def test_an_edge_understands_what_is_said(edge: tuple[Dialect, bool]) -> None:
    dialect, native = edge
    wire, _ = begun(dialect, EdgeStart(call="call_1", epoch=1))

    def read(said: Message) -> Any:
        return dialect.read(
            said if isinstance(said, bytes) else said.encode(), binary=isinstance(said, bytes)
        )

    frame = tone(20, wire.rate_hz)
    assert read(wire.audio(frame)) == AgentAudio(frame if native else to_ulaw(frame))
    if not native:
        assert json.loads(wire.clear())["streamSid"] == "MZ1"
    assert read(wire.mark("u1")) == AgentMark("u1")
    assert read(wire.clear()) == AgentClear()
    told = read(wire.text("turn.ended", {"role": "agent"}))
    assert isinstance(told, AgentText)
    assert (told.type, json.loads(told.data)) == ("turn.ended", {"role": "agent"})
    if native:
        assert read(wire.utterance("u1", 0)) == AgentUtterance("u1")
        assert read(wire.utterance("u1", 460)) == AgentUtterance("u1", 460)
        assert read(wire.hangup("resolved")) == AgentHangup("resolved")
        assert wire.opening() == ""
    else:
        assert (wire.utterance("u1", 0), wire.hangup("resolved")) == ("", "")
        assert isinstance(read(wire.opening()), AgentText)


def test_an_utterance_that_was_cut_is_named_on_the_native_wire() -> None:
    told = EdgeStart(call="c", epoch=2, turns=[], cut=EdgeCut(id="u7", offset_ms=1_240))
    _, start = begun(NativeDialect(), told)
    assert start.cut == Cut("u7", 1_240)


@pytest.mark.parametrize(
    "first",
    ["", "[]", "{", '{"type":"start"}', '{"type":"start","protocol":"voxplane.agent.v1","audio":{"encoding":"opus"}}',
     '{"type":"start","protocol":"voxplane.agent.v1","audio":{"encoding":"pcm16","sample_rate":11025}}', b"\x00\x01"],
)  # fmt: skip
def test_another_wire_is_refused(first: Message) -> None:
    with pytest.raises(UnknownWire):
        wire_of(first)


def wires() -> list[Wire]:
    return [begun(dialect, EdgeStart(call="c", epoch=1))[0] for dialect, _ in edges()]


@pytest.mark.parametrize("wire", wires(), ids=["native", "twilio"])
@pytest.mark.parametrize(
    "nonsense",
    ["", "{", "[]", "7", '{"type":5}', '{"event":5}', '{"type":"mark","data":7}', '{"event":"media"}',
     '{"event":"media","media":{"payload":"%"}}', '{"event":"media","media":{"payload":7}}', b"\x01", b"",
     '{"type":"start","epoch":"x","parameters":[],"cut":{"id":7,"offset_ms":"x"},"conversation":[1]}',
     '{"event":"start","start":{"customParameters":{"voxplane_epoch":"-1","voxplane_conversation":"["}}}',
     "[" * 100_000],
)  # fmt: skip
def test_nonsense_is_read_as_nothing_or_as_little(wire: Wire, nonsense: Message) -> None:
    found = wire.read(nonsense)
    assert found == IGNORED or isinstance(found, Told | Marked | Started)
    if isinstance(found, Started):
        assert (found.start.epoch, found.start.cut, found.start.turns) == (1, None, [])


# -------------------------------------------------------------------------------------------------------- ledger


def spoken(id_: str, text: str, *, words: bool = True) -> Utterance:
    said = [Word(w, 200 * i) for i, w in enumerate(text.split())] if words else []
    return Utterance(id_, text, said)


def ledger_of(*utterances: Utterance, ms: int = 600, at_s: float = 10.0) -> Ledger:
    ledger = Ledger()
    for utterance in utterances:
        ledger.begin(utterance)
        ledger.audio(utterance, ms, at_s)
    return ledger


def test_one_that_is_cut_by_the_backend_is_reckoned_by_the_clock() -> None:
    ledger = ledger_of(spoken("a", "one two three"), spoken("b", "four five six"))
    assert ledger.clear(10.9) == [
        Outcome("a", "one two three", interrupted=True),
        Outcome("b", "four five", interrupted=True),
    ]
    assert not ledger.unheard


def test_without_words_it_is_cut_in_proportion() -> None:
    ledger = ledger_of(spoken("a", "one two three four five six", words=False))
    assert ledger.clear(10.3) == [Outcome("a", "one two three", interrupted=True)]


def test_a_mark_that_came_right_before_a_report_was_no_playing() -> None:
    ledger = ledger_of(spoken("a", "one two three"), spoken("b", "four five six"))
    assert ledger.marked("a") == Outcome("a", "one two three", interrupted=False)
    assert ledger.marked("b") is not None
    assert ledger.told("one two", 400, "", 11.0) == [
        Outcome("a", "one two", interrupted=True),
        Outcome("b", "", interrupted=True),
    ]


def test_a_mark_that_came_before_other_things_is_believed() -> None:
    ledger = ledger_of(spoken("a", "one two three"), spoken("b", "four five six"))
    ledger.marked("a")
    ledger.believe()
    ledger.marked("b")
    assert ledger.told("four", 100, "", 11.0) == [Outcome("b", "four", interrupted=True)]


def test_the_one_that_begins_so_was_cut_or_the_one_that_is_named() -> None:
    def made() -> Ledger:
        ledger = ledger_of(spoken("a", "one two three"), spoken("b", "four five six"))
        ledger.marked("a")
        return ledger

    assert made().told("four five", 400, "", 11.0) == [
        Outcome("a", "one two three", interrupted=False),
        Outcome("b", "four five", interrupted=True),
    ]
    assert made().told("", 400, "b", 11.0)[1] == Outcome("b", "four five", interrupted=True)


def test_a_report_mends_what_the_clock_has_said() -> None:
    ledger = ledger_of(spoken("a", "one two three"))
    ledger.clear(10.6)
    assert ledger.told("one", 100, "", 10.7) == [Outcome("a", "one", interrupted=True)]
    assert ledger.told("one", 100, "", 10.7) == []


def test_an_utterance_that_goes_on_is_heard_from_where_it_was() -> None:
    ledger = Ledger()
    rest = Utterance("a", "one two three", spoken("a", "one two three").words, from_ms=250)
    ledger.begin(rest)
    ledger.audio(rest, 350, 10.0)
    assert ledger.clear(10.0) == [Outcome("a", "one two", interrupted=True)]


# ------------------------------------------------------------------------------------------------------- history


def test_a_conversation_holds_nothing_that_was_not_heard() -> None:
    history = History()
    history.caller("hi")
    history.agent("u1", "One two")
    assert not history.unanswered
    history.agent("u1", "")
    assert history.unanswered
    assert history.entries == (Said("caller", "hi"),)


def test_what_an_edge_remembers_is_read_and_the_rest_passed_over() -> None:
    history = History()
    history.recall(
        [{"role": "caller", "text": "a"}, 7, {"role": "agent"}, {"role": "caller", "text": 7}, {"role": "x"},
         {"role": "tool", "id": "t", "name": "n", "arguments": None, "result": None},
         {"role": "agent", "text": "b", "interrupted": True}]
    )  # fmt: skip
    history.recall("nonsense")
    assert history.entries == (Said("caller", "a"), ToolUse("t", "n", {}), Said("agent", "b", True))
    assert history.turns == 1


def test_a_conversation_does_not_grow_for_ever() -> None:
    history = History()
    for i in range(ENTRIES_MAX + 5):
        history.caller(str(i))
    assert len(history.entries) == ENTRIES_MAX
    assert history.entries[-1] == Said("caller", str(ENTRIES_MAX + 4))
    assert history.turns == ENTRIES_MAX + 5


# ------------------------------------------------------------------------------------------- the smaller things


def test_stages_follow_each_other() -> None:
    watch = Stopwatch(1.0, 0.9)
    watch.tool(0.2)
    watch.text(1.5)
    watch.tool(5.0)
    watch.text(9.0)
    watch.audio(1.75)
    watch.sent(1.76)
    assert watch.stages.data() == {
        "stt_ms": 100,
        "tool_ms": 200,
        "llm_ms": 300,
        "tts_ms": 250,
        "pacing_ms": 10,
    }
    assert Stopwatch(1.0).stages.data() == {}


def test_sentences_end_where_they_end() -> None:
    cutter = Sentences()
    assert cutter.feed("It costs 3.5 eu") == []
    assert cutter.feed("ros. Really! Yes") == ["It costs 3.5 euros.", "Really!"]
    assert cutter.flush() == "Yes"
    long = "word " * 100
    assert all(len(s) <= 400 for s in cutter.feed(long))
    assert cutter.flush()


async def test_of_what_nobody_reads_the_oldest_is_dropped() -> None:
    feed: Feed[int] = Feed(3)
    for i in range(5):
        feed.put(i)
    feed.close()
    feed.put(9)
    assert ([i async for i in feed], feed.dropped) == ([2, 3, 4], 2)


def test_the_newest_utterance_of_a_call_is_kept_and_no_more_than_there_is_room_for() -> None:
    kept = Recordings(bytes_max=3_000)
    first, second = Utterance("u1"), Utterance("u2")
    kept.begin("a", first, 8_000)
    kept.add("a", first, b"\x01\x02" * 500)
    found = kept.of("a", "u1", 8_000)
    assert found is not None
    assert len(found.rest(25)) == 600
    assert kept.of("a", "u1", 16_000) is None
    kept.begin("a", second, 8_000)
    kept.add("a", first, b"late")
    assert (kept.of("a", "u1", 8_000), kept.of("a", "u2", 8_000) is None) == (None, False)
    for _ in range(2):
        kept.begin("b", first, 8_000)
        kept.add("b", first, bytes(2_900))
    assert kept.of("b", "u1", 8_000) is not None
    kept.add("a", second, bytes(200))
    assert kept.of("a", "u2", 8_000) is None
