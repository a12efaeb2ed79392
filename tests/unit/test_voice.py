"""Two detectors of a voice, and what they make of it together; the batch that many calls share."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regions.edge.caller_turns import MORE_WITHIN_MS, WORDS_WITHIN_MS, CallerTurns
from regions.edge.played import Played
from regions.edge.settings import EdgeSettings, SettingsError
from regions.media import opinion as second
from regions.media import silero as module
from regions.media.opinion import ANSWER_FRAMES, DISTRUST_FRAMES, SHUT_FRAMES, TRUST_WINDOWS, Opinion, State
from regions.media.silero import (
    CONTEXT_SAMPLES,
    STATE_SIZE,
    WAITING_MAX,
    WINDOW_SAMPLES,
    Model,
    Silero,
    Unavailable,
)
from regions.media.turns import Ended
from regions.media.voice_activity import PROBABILITY, VoiceGate
from regions.wire.media import Position
from tests.support.voices import room, vowel

FRAME_BYTES = 320


def frames(pcm: bytes) -> list[bytes]:
    return [pcm[i : i + FRAME_BYTES] for i in range(0, len(pcm) - FRAME_BYTES + 1, FRAME_BYTES)]


def test_the_gate_hears_a_vowel_and_not_a_room() -> None:
    gate = VoiceGate()
    assert sum(gate.feed(f).voice for f in frames(vowel(1_000))) > 40
    gate = VoiceGate()
    assert not any(gate.feed(f).voice for f in frames(room(1_000)))


# ------------------------------------------------------------------------------------------------------------ the opinion


def heard(opinion: Opinion, open_: bool, count: int = 1) -> list[bool]:
    found = []
    for _ in range(count):
        opinion.gate(open_)
        found.append(opinion.voice(open_)[0])
    return found


def test_the_gate_is_trusted_until_silero_has_had_its_windows() -> None:
    opinion = Opinion()
    assert not opinion.awake
    assert heard(opinion, True, 3) == [True] * 3
    for _ in range(TRUST_WINDOWS):
        assert opinion.state is State.TRUSTING
        opinion.window(0.1)
    assert heard(opinion, True, 10) == [False] * 10
    heard(opinion, False, SHUT_FRAMES)
    assert opinion.state is State.ASLEEP
    assert heard(opinion, True, 5) == [False] * 5, "it was noise a moment ago"
    heard(opinion, False, DISTRUST_FRAMES)
    assert heard(opinion, True) == [True]


def test_once_it_is_sure_it_says_itself_when_the_voice_ends() -> None:
    opinion = Opinion()
    heard(opinion, True)
    opinion.window(0.9)
    assert heard(opinion, False, SHUT_FRAMES) == [True] * SHUT_FRAMES, "the gate misses what is soft"
    opinion.window(0.4)
    assert heard(opinion, True) == [True]
    opinion.window(0.2)
    assert heard(opinion, True) == [False]
    opinion.window(0.6)
    assert heard(opinion, True) == [True]


def test_where_silero_does_not_answer_the_gate_serves_alone() -> None:
    opinion = Opinion()
    heard(opinion, True)
    opinion.window(0.9)
    heard(opinion, True, ANSWER_FRAMES)
    assert (heard(opinion, True), heard(opinion, False)) == ([True], [False])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.booleans() | st.floats(0, 1), max_size=200))
def test_nothing_is_a_voice_while_it_sleeps_and_it_sleeps_after_any_silence(history: list[Any]) -> None:
    opinion = Opinion()
    for step in history:
        if isinstance(step, bool):
            [voice] = heard(opinion, step)
            assert not voice or opinion.awake
        else:
            opinion.window(step)
    heard(opinion, False, ANSWER_FRAMES + SHUT_FRAMES)
    assert not opinion.awake
    assert set(State) == {second.State.ASLEEP, State.TRUSTING, State.SURE, State.UNSURE}


# -------------------------------------------------------------------------------------------------------------- the batch


class Echo:
    """A model that answers with the loudest sample of the window, and counts windows in its state."""

    numpy = np

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run(self, windows: Any, state: Any) -> tuple[Any, Any]:
        assert windows.shape == (len(windows), CONTEXT_SAMPLES + WINDOW_SAMPLES)
        assert state.shape == (2, len(windows), STATE_SIZE)
        self.batches.append(len(windows))
        return np.abs(windows[:, CONTEXT_SAMPLES:]).max(axis=1), state + 1


@asynccontextmanager
async def batch(monkeypatch: pytest.MonkeyPatch, model: Any) -> AsyncIterator[Silero]:
    monkeypatch.setattr(module, "EVERY_S", 0)
    silero = Silero(model)
    silero.start()
    try:
        yield silero
    finally:
        await silero.stop()


async def answered(silero: Silero, windows: int) -> None:
    async with asyncio.timeout(10):
        while silero.windows < windows:
            await asyncio.sleep(0)


async def test_calls_share_a_batch_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Echo()
    async with batch(monkeypatch, model) as silero:
        voices = [silero.voice() for _ in range(20)]
        loud, silent = frames(vowel(160)), frames(room(160))
        for one, other in zip(loud, silent, strict=True):
            for i, voice in enumerate(voices):
                voice.feed(one if i % 2 else other)
            await asyncio.sleep(0)
        await answered(silero, 10 * WAITING_MAX)
        assert max(model.batches) == 10, "those whose gate is shut are not asked"
        assert [silero._state[0, v.slot, 0] for v in voices[:2]] == [0, silero.windows // 10]
        assert voices[1].feed(loud[0]).probability > 0.1


async def test_a_slot_is_used_again_and_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async with batch(monkeypatch, Echo()) as silero:
        first = silero.voice()
        for frame in frames(vowel(80)):
            first.feed(frame)
        slot = first.slot
        first.close()
        first.close()
        second_ = silero.voice()
        assert second_.slot == slot
        second_.feed(frames(vowel(20))[0])
        assert not silero._state[:, slot].any()


async def test_what_is_too_much_goes_unanswered_the_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    async with batch(monkeypatch, Echo()) as silero:
        voice = silero.voice()
        for frame in frames(vowel(1_000)):
            voice.feed(frame)
        assert len(voice.waiting) == WAITING_MAX
        await answered(silero, WAITING_MAX)


async def test_an_answer_to_what_was_before_a_silence_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Echo):
        def __init__(self) -> None:
            super().__init__()
            self.begun, self.goes = threading.Event(), threading.Event()

        def run(self, windows: Any, state: Any) -> tuple[Any, Any]:
            self.begun.set()
            self.goes.wait(10)
            return super().run(windows, state)

    model = Slow()
    async with batch(monkeypatch, model) as silero:
        voice = silero.voice()
        for frame in frames(vowel(40)):
            voice.feed(frame)
        async with asyncio.timeout(10):
            while not model.begun.is_set():
                await asyncio.sleep(0)
        for frame in frames(room(SHUT_FRAMES * 20)) + frames(vowel(20)):
            voice.feed(frame)
        model.goes.set()
        await answered(silero, 1)
        assert not silero._state[:, voice.slot].any()
        assert voice.feed(frames(vowel(20))[0]).probability == PROBABILITY, "it has not been answered"


async def test_a_batch_that_fails_leaves_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Echo):
        def run(self, windows: Any, state: Any) -> tuple[Any, Any]:
            self.batches.append(len(windows))
            raise ValueError("no")

    model = Broken()
    async with batch(monkeypatch, model) as silero:
        voice = silero.voice()
        for count, frame in enumerate(frames(vowel(600))):
            assert voice.feed(frame).voice or not count
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            while not model.batches:
                await asyncio.sleep(0)


def test_the_model_itself_answers_in_a_batch_as_alone_or_says_why_it_is_not_here() -> None:
    if importlib.util.find_spec("silero_vad") is None:
        with pytest.raises(Unavailable, match="silero-vad"):
            Model()
        return
    model = Model()
    draw = np.random.default_rng(7)
    windows = draw.normal(0, 0.1, (5, CONTEXT_SAMPLES + WINDOW_SAMPLES)).astype(np.float32)
    state = draw.normal(0, 0.1, (2, 5, STATE_SIZE)).astype(np.float32)
    together, after = model.run(windows, state)
    for i in range(5):
        alone, its_own = model.run(windows[i : i + 1], state[:, i : i + 1])
        assert alone[0] == pytest.approx(together[i], abs=1e-4)
        assert its_own[:, 0] == pytest.approx(after[:, i], abs=1e-3)
        assert 0 <= alone[0] <= 1


def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(Unavailable, match="silero-vad is not installed"):
        Model()


def test_the_detector_is_a_setting() -> None:
    env = {"VOXPLANE_REGION": "lab", "VOXPLANE_EDGE_NAME": "e", "VOXPLANE_CONTROL_URLS": "http://127.0.0.1"}
    assert EdgeSettings.from_env(env).voice_detector == "auto"
    assert EdgeSettings.from_env(env | {"VOXPLANE_VOICE_DETECTOR": "webrtc"}).voice_detector == "webrtc"
    with pytest.raises(SettingsError, match="VOXPLANE_VOICE_DETECTOR"):
        EdgeSettings.from_env(env | {"VOXPLANE_VOICE_DETECTOR": "ears"})


# ------------------------------------------------------------------------------------------------- whose word is written

ENDED = Ended(100, 900, 320)
TIMES = {"started_ms": 100, "stopped_ms": 900, "waited_ms": 320, "by": "silence"}


def test_the_backends_word_is_the_one_that_is_written() -> None:
    turns = CallerTurns()
    assert turns.started() is None
    assert turns.ended(ENDED, 1_000) is None
    turns.final("yes", 1_100)
    assert turns.theirs("yes") == {"role": "caller", "text": "yes", **TIMES}
    assert turns.due(99_000) is None
    turns.started()
    assert turns.ended(ENDED, 5_000) is None
    turns.final("again", 5_100)
    assert turns.due(99_000) is None, "it ends its turns itself"
    assert turns.theirs("more") == {"role": "caller", "text": "more", **TIMES}


def test_finals_become_the_turns_words_and_one_that_is_late_a_turn_of_its_own() -> None:
    turns = CallerTurns()
    turns.started()
    turns.final("where is", 500)
    assert turns.due(99_000) is None, "it is not over"
    assert turns.ended(ENDED, 1_000) is None
    turns.final("my order", 1_050)
    assert turns.due(1_049 + MORE_WITHIN_MS) is None
    assert turns.due(1_050 + MORE_WITHIN_MS) == {"role": "caller", "text": "where is my order", **TIMES}
    turns.final("please", 3_000)
    assert turns.due(3_000 + MORE_WITHIN_MS) == {"role": "caller", "text": "please"}


def test_one_that_was_waited_for_in_vain_is_the_last_that_is() -> None:
    turns = CallerTurns()
    turns.ended(ENDED, 1_000)
    assert turns.due(999 + WORDS_WITHIN_MS) is None
    assert turns.due(1_000 + WORDS_WITHIN_MS) == {"role": "caller", "text": "", **TIMES}
    assert turns.ended(ENDED, 5_000) == {"role": "caller", "text": "", **TIMES}
    turns.forget()
    assert turns.ended(ENDED, 9_000) is None, "another backend"
    assert turns.started() == {"role": "caller", "text": "", **TIMES}, "the caller goes on"
    turns.ended(ENDED, 10_000)
    turns.final("x", 10_000)
    assert turns.flush() is not None and turns.flush() is None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["talk", "final", "theirs", "wait", "answer"]), max_size=40))
def test_no_turn_is_written_twice_and_no_word_is_lost(steps: list[str]) -> None:
    turns, now, said, ended = CallerTurns(), 0, 0, 0
    written: list[dict[str, object]] = []
    theirs = False
    for step in steps:
        now += 10
        found: list[dict[str, object] | None] = []
        match step:
            case "talk":
                ended += 1
                found = [turns.started(), turns.ended(Ended(now, now, 320), now)]
            case "final" if not theirs:
                turns.final(f"w{said}", now)
                said += 1
            case "theirs":
                theirs = True
                found = [turns.theirs("all")]
            case "wait":
                now += WORDS_WITHIN_MS
                found = [turns.due(now)]
            case "answer":
                found = [turns.flush()]
        written += [f for f in found if f is not None]
    written += [f for f in [turns.flush()] if f is not None]
    timed = [(f["started_ms"], f["stopped_ms"]) for f in written if "started_ms" in f]
    assert len(timed) == len(set(timed)) <= ended
    if not theirs:
        assert " ".join(str(f["text"]) for f in written if f["text"]).split() == [
            f"w{i}" for i in range(said)
        ]


def test_what_the_caller_has_played_counts_once_it_has_heard_what_it_answers() -> None:
    played = Played()
    assert not played.tells
    played.said(100, Position(utterance=2, offset_ms=500))
    assert played.tells
    at = Position(utterance=2, offset_ms=640)
    assert played.heard_ms(at, 101) is None
    played.said(101, Position(utterance=2, offset_ms=540))
    assert played.heard_ms(at, 101) == 540
    played.said(90, Position(utterance=2, offset_ms=100))
    assert played.heard_ms(at, 101) == 540, "that was older"
    assert played.heard_ms(Position(utterance=3, offset_ms=200), 101) == 0
    assert played.heard_ms(Position(utterance=2, offset_ms=300), 101) == 300, "no more than was sent"


def test_the_runtime_keeps_no_id_of_the_user_and_reports_nothing(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    program = "from regions.media.silero import Model; Model()"
    subprocess.run([sys.executable, "-c", program], env=env | {"HOME": str(tmp_path)}, check=True)
    assert list(tmp_path.iterdir()) == []
