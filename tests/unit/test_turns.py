"""When a caller speaks and when its turn is over, for voices that nobody has: the detector of turns, and what a barge-in does."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regions.media import barge_in as barge
from regions.media import turns as machine
from regions.media.barge_in import HELD_MS_MAX, WORD_WITHIN_MS, BargeIn, Does, State
from regions.media.level import BOUND_MAX, Level
from regions.media.phrases import Look, look
from regions.media.turns import (
    GAP_MS,
    LATE_FRAMES,
    STOP_MS,
    TALK_MS_MAX,
    Ended,
    Fact,
    Pauses,
    Phase,
    Sound,
    Started,
    Stopped,
    TurnDetector,
)
from regions.wire.ticket import Turns

LOUD, QUIET = Sound(True, 0.7, 2_000), Sound(False, 0.0, 30)
FRAME_MS = 20
AUTO = Turns()


class Line:
    """A caller, frame by frame, and what is found."""

    def __init__(self, turns: Turns = AUTO) -> None:
        self.detector = TurnDetector(turns)
        self.now_ms = 0
        self.found: list[tuple[int, Fact]] = []
        self.agent = False

    def hear(self, sound: Sound | None, ms: int = FRAME_MS) -> Line:
        """`None`: no frame comes."""
        for _ in range(ms // FRAME_MS):
            self.now_ms += FRAME_MS
            where = {"offset_ms": self.now_ms, "agent": self.agent}
            facts = self.detector.missed(**where) if sound is None else self.detector.hear(sound, **where)
            self.found += [(self.now_ms, fact) for fact in facts]
        return self

    def voice(self, ms: int) -> Line:
        return self.hear(LOUD, ms)

    def quiet(self, ms: int) -> Line:
        return self.hear(QUIET, ms)

    def of(self, kind: type[Fact]) -> list[tuple[int, Fact]]:
        return [(at, f) for at, f in self.found if isinstance(f, kind)]


# --------------------------------------------------------------------------------------------------- one turn, by default


def test_a_voice_is_found_after_sixty_milliseconds_and_dated_back_to_its_first_frame() -> None:
    line = Line().quiet(500).voice(400).quiet(1_000)
    assert line.found == [
        (560, Started(500, False)),
        (900 + STOP_MS, Stopped(900)),
        (1_220, Ended(500, 900, 320)),
    ]


@pytest.mark.parametrize("pause_ms", [20, 100, 150, 300])
def test_a_pause_of_up_to_300_ms_splits_no_turn(pause_ms: int) -> None:
    line = Line()
    for _ in range(6):
        line.voice(300).quiet(pause_ms)
    line.quiet(1_000)
    assert len(line.of(Ended)) == 1
    assert len(line.of(Started)) == (6 if pause_ms >= STOP_MS else 1)
    ((at, ended),) = line.of(Ended)
    assert isinstance(ended, Ended) and ended.waited_ms <= 350 and at == ended.stopped_ms + ended.waited_ms


def test_a_pause_that_is_longer_than_the_hangover_splits_one() -> None:
    assert len(Line().voice(300).quiet(600).voice(300).quiet(1_000).of(Ended)) == 2


@pytest.mark.parametrize("ms", [20, 40])
def test_a_click_starts_nothing_and_ends_no_pause(ms: int) -> None:
    assert Line().quiet(200).voice(ms).quiet(1_000).found == []
    line = Line().voice(300).quiet(200).voice(ms).quiet(1_000)
    assert [type(f) for _, f in line.found] == [Started, Stopped, Ended]
    ((_, ended),) = line.of(Ended)
    assert isinstance(ended, Ended) and ended.stopped_ms == 300


def test_two_frames_that_are_missing_are_no_voice_and_one_is() -> None:
    holes = Line()
    for _ in range(20):
        holes.voice(40).quiet(40)
    assert holes.found == []
    assert Line().voice(40).quiet(20).voice(20).found == [(80, Started(0, False))]


def test_who_speaks_when_the_call_is_answered_began_no_earlier() -> None:
    detector = TurnDetector(AUTO)
    burst = [LOUD] * 10 + [QUIET] * 40
    facts = [fact for sound in burst for fact in detector.hear(sound, offset_ms=30, agent=False)]
    assert facts[:2] == [Started(0, False), Stopped(0)], "it all came at once"
    assert facts[2:] == [Ended(0, 0, AUTO.end_ms)]


def test_what_does_not_stand_out_of_the_lines_noise_is_no_voice_though_the_detector_says_so() -> None:
    line = Line()
    for _ in range(200):
        line.hear(Sound(False, 0.0, 300))
    line.hear(Sound(True, 0.7, 450), 400)
    assert line.found == []
    assert isinstance(line.hear(Sound(True, 0.95, 450), 100).found[0][1], Started), "it is sure"


def test_over_the_agent_the_detector_has_to_be_surer() -> None:
    line = Line()
    line.agent = True
    assert line.hear(Sound(True, 0.5, 2_000), 200).found == []
    line.agent = False
    assert [f for _, f in line.hear(Sound(True, 0.5, 2_000), 60).found] == [Started(200, False)]
    loud = Line()
    loud.agent = True
    assert [f for _, f in loud.voice(60).found] == [Started(0, True)]


def test_who_sends_nothing_says_nothing_and_jitter_is_no_silence() -> None:
    late = Line().voice(300).hear(None, LATE_FRAMES * FRAME_MS).voice(300)
    assert len(late.found) == 1
    gone = Line().voice(300).hear(None, 1_000)
    ((at, _),) = gone.of(Ended)
    assert at == 300 + LATE_FRAMES * FRAME_MS + 320


# --------------------------------------------------------------------------------------------------------- how long it waits


def test_a_speaker_whose_turns_were_split_is_waited_for_longer() -> None:
    line = Line()
    for pause_ms in (480, 460, 460):
        line.voice(300).quiet(pause_ms)
    line.voice(300).quiet(2_000)
    kinds = [type(f) for _, f in line.found]
    assert kinds == [*[Started, Stopped, Ended] * 2, *[Started, Stopped] * 2, Ended]
    assert line.detector.hangover_ms == 460 + Pauses.MARGIN_MS
    answered = Line().voice(300).quiet(400)
    answered.agent = True
    answered.quiet(100)
    answered.agent = False
    answered.voice(300)
    assert answered.detector.hangover_ms == AUTO.end_ms, "the agent had answered: that was another turn"


def test_one_odd_pause_counts_for_nothing_and_old_ones_are_forgotten() -> None:
    pauses = Pauses()
    pauses.add(80)
    pauses.add(900)
    assert pauses.needed_ms == 0
    pauses.add(150)
    assert pauses.needed_ms == 150 + Pauses.MARGIN_MS
    pauses.add(900)
    assert pauses.needed_ms == 900 + Pauses.MARGIN_MS
    for _ in range(Pauses.KEPT - 1):
        pauses.add(120)
    assert pauses.needed_ms == 120 + Pauses.MARGIN_MS


def test_a_transcript_lengthens_or_shortens_what_is_waited_for_until_it_is_stale() -> None:
    found = {}
    for text in ("I would like to", "Yes, please.", "seven of clubs", ""):
        line = Line().voice(600)
        line.detector.hint(text)
        line.quiet(2_000)
        ((_, ended),) = line.of(Ended)
        assert isinstance(ended, Ended)
        found[text] = ended.waited_ms
    assert found == {"I would like to": 640, "Yes, please.": 240, "seven of clubs": 320, "": 320}
    stale = Line().voice(200)
    stale.detector.hint("I would like to")
    ((_, ended),) = stale.voice(420).quiet(2_000).of(Ended)
    assert isinstance(ended, Ended) and ended.waited_ms == 320
    before = Line()
    before.detector.hint("of the turn before and")
    ((_, ended),) = before.voice(100).quiet(2_000).of(Ended)
    assert isinstance(ended, Ended) and ended.waited_ms == 320


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("  ", Look.NOTHING), ("where is my", Look.UNFINISHED), ("I'd like, um", Look.UNFINISHED), ("well,", Look.UNFINISHED),
        ("so …", Look.UNFINISHED), ("wait...", Look.UNFINISHED), ("Yes.", Look.FINISHED), ('He said "stop!"', Look.FINISHED),
        ("今何時ですか？", Look.FINISHED), ("मैं घर पर हूँ।", Look.FINISHED), ("order 158", Look.NEITHER),
    ],
)  # fmt: skip
def test_how_a_partial_transcript_looks(text: str, seen: Look) -> None:
    assert look(text) is seen


# ------------------------------------------------------------------------------------------------------------------- modes


def test_push_to_talk_is_what_the_button_says_and_nothing_else() -> None:
    line = Line(Turns(mode="push_to_talk"))
    detector = line.voice(1_000).detector
    assert line.found == [] and not detector.open
    assert detector.talk(True, offset_ms=1_000, agent=True) == [Started(1_000, True)]
    assert detector.talk(True, offset_ms=1_010, agent=True) == []
    assert line.quiet(2_000).found == [] and detector.open
    assert detector.talk(False, offset_ms=3_000, agent=False) == [
        Stopped(3_000),
        Ended(1_000, 3_000, 0, "talk"),
    ]
    assert detector.talk(False, offset_ms=3_010, agent=False) == []
    detector.talk(True, offset_ms=line.now_ms, agent=False)
    kinds = [type(f) for _, f in line.hear(None, TALK_MS_MAX + FRAME_MS).found]
    assert kinds == [Stopped, Ended], "a button that is held for ever is let go"


@pytest.mark.parametrize("mode", ["off", "auto"])
def test_a_button_does_nothing_in_other_modes_and_off_finds_nothing(mode: str) -> None:
    line = Line(Turns(mode=mode))
    assert line.detector.talk(True, offset_ms=0, agent=False) == []
    line.voice(500).quiet(500)
    assert bool(line.found) == (mode == "auto")


def test_a_turn_that_is_void_is_not_heard_of_again() -> None:
    line = Line().voice(100).quiet(STOP_MS)
    line.detector.void()
    line.quiet(1_000)
    assert [type(f) for _, f in line.found] == [Started, Stopped]


# -------------------------------------------------------------------------------------------------------------- any voice

VOICES = st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=30)
POLICIES = st.builds(
    Turns,
    start_ms=st.integers(40, 500),
    end_ms=st.integers(200, 2_000),
    end_ms_max=st.integers(200, 5_000),
)


@settings(max_examples=300, deadline=None)
@given(VOICES, POLICIES, st.lists(st.text(max_size=6), max_size=30))
def test_whatever_is_said_the_facts_alternate_do_not_overlap_and_come_in_time(
    pattern: list[tuple[bool, int]], turns: Turns, texts: list[str]
) -> None:
    line = Line(turns)
    for (voice, frames), text in itertools.zip_longest(pattern, texts[: len(pattern)], fillvalue=""):
        line.detector.hint(text)
        line.hear(LOUD if voice else QUIET, frames * FRAME_MS)
    last_voice_ms = line.now_ms if pattern and pattern[-1][0] else None
    line.quiet(12_000)
    assert not line.detector.open, "every turn ends"
    speaking, open_ = False, False
    edge_ms = 0
    start_ms = -(-turns.start_ms // FRAME_MS) * FRAME_MS
    for at, fact in line.found:
        match fact:
            case Started(began_ms, _):
                assert not speaking
                assert edge_ms <= began_ms <= at - start_ms
                assert at - began_ms < 2 * start_ms, "of two neighbours one is voiced"
                speaking = open_ = True
                edge_ms = began_ms
            case Stopped(stopped_ms):
                assert speaking and open_
                assert edge_ms < stopped_ms <= at - STOP_MS
                assert at - stopped_ms <= STOP_MS + 2 * start_ms + GAP_MS or _clicks(pattern)
                speaking, edge_ms = False, stopped_ms
            case Ended(started_ms, stopped_ms, waited_ms):
                assert open_ and not speaking
                assert started_ms < stopped_ms == edge_ms == at - waited_ms
                assert waited_ms >= STOP_MS
                open_ = False
    assert not open_ and not speaking
    if last_voice_ms is not None and line.found:
        ended = line.of(Ended)[-1][1]
        assert isinstance(ended, Ended) and ended.stopped_ms <= last_voice_ms


def _clicks(pattern: list[tuple[bool, int]]) -> bool:
    """There are voices too short to count: each holds off an end for as long as it is not known to be one."""
    return any(voice and frames < 25 for voice, frames in pattern)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(3, 60), st.integers(1, 15)), min_size=1, max_size=20))
def test_by_default_no_speaker_with_pauses_of_up_to_300_ms_is_ever_split_nor_kept_waiting(
    words: list[tuple[int, int]],
) -> None:
    line = Line()
    for voiced, pause in words:
        line.voice(voiced * FRAME_MS).quiet(pause * FRAME_MS)
    line.quiet(2_000)
    ((_, ended),) = line.of(Ended)
    assert isinstance(ended, Ended) and 320 <= ended.waited_ms <= 340


def test_the_tables_lead_everywhere_and_refuse_the_rest() -> None:
    detector = TurnDetector(AUTO)
    for phase in Phase:
        for input_ in machine.Input:
            detector.phase = phase
            if (phase, input_) not in machine.TABLE:
                with pytest.raises(machine.BadInput):
                    detector._step(input_)
    assert {p for p, _ in machine.TABLE} == set(machine.TABLE.values()) == set(Phase)
    assert {s for s, _ in barge.TABLE} == set(barge.TABLE.values()) == set(State)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5_000), st.booleans()), max_size=300))
def test_the_bound_of_what_is_loud_stays_within_its_limits(frames: list[tuple[int, bool]]) -> None:
    level = Level()
    for rms, voice in frames:
        level.loud(rms, voice=voice, probability=0.7)
        assert 0 < level.bound(0.9) <= level.bound(0.7) <= BOUND_MAX


# ---------------------------------------------------------------------------------------------------------------- barge-in


def test_a_voice_over_the_agent_holds_it_and_enough_of_it_cancels() -> None:
    interruption = BargeIn(AUTO)
    assert interruption.started(0, agent=True, sure=False) is Does.HOLD
    assert [interruption.spoken(ms) for ms in (60, 80, 180, 200)] == [None, None, None, Does.CANCEL]
    assert interruption.spoken(500) is None
    assert interruption.quiet() is None


def test_one_that_falls_quiet_was_none_unless_a_word_is_understood() -> None:
    interruption = BargeIn(AUTO)
    interruption.started(1_000, agent=True, sure=False)
    interruption.spoken(140)
    assert interruption.quiet() is Does.RESUME
    assert interruption.word(1_000 + WORD_WITHIN_MS, agent=True) is Does.CANCEL
    interruption.started(5_000, agent=True, sure=False)
    assert interruption.word(5_050, agent=True) is Does.CANCEL
    interruption.started(9_000, agent=True, sure=False)
    interruption.quiet()
    assert interruption.word(9_500, agent=False) is None, "there is nothing to cancel"
    assert interruption.tick(9_001 + WORD_WITHIN_MS) is None
    assert interruption.word(9_002 + WORD_WITHIN_MS, agent=True) is None, "that was another word"


def test_nothing_is_held_for_ever() -> None:
    interruption = BargeIn(AUTO)
    interruption.started(0, agent=True, sure=False)
    assert interruption.tick(HELD_MS_MAX - 1) is None
    assert interruption.tick(HELD_MS_MAX) is Does.RESUME


def test_the_other_policies_and_the_button() -> None:
    assert BargeIn(Turns(barge_in="immediate")).started(0, agent=True, sure=False) is Does.CANCEL
    assert BargeIn(Turns(barge_in="off")).started(0, agent=True, sure=True) is None
    assert BargeIn(AUTO).started(0, agent=True, sure=True) is Does.CANCEL
    assert BargeIn(AUTO).started(0, agent=False, sure=True) is None
    assert BargeIn(Turns(barge_in_ms=400)).spoken(400) is None


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("started"), st.booleans()), st.tuples(st.just("spoken"), st.integers(0, 400)),
        st.tuples(st.just("word"), st.booleans()), st.tuples(st.just("quiet"), st.just(0)),
        st.tuples(st.just("cleared"), st.just(0)), st.tuples(st.just("wait"), st.integers(0, 1_500)),
    ),
    max_size=40,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_a_hold_is_always_let_go_once_and_nothing_else_is(steps: list[tuple[str, int]]) -> None:
    interruption, now, held = BargeIn(AUTO), 0, False
    for step, n in steps:
        match step:
            case "started":
                does = interruption.started(now, agent=bool(n), sure=False)
            case "spoken":
                does = interruption.spoken(n)
            case "word":
                does = interruption.word(now, agent=bool(n))
            case "quiet":
                does = interruption.quiet()
            case "cleared":
                does, held = interruption.cleared(), False
            case _:
                now += n
                does = interruption.tick(now)
        if does is Does.HOLD:
            assert not held
            held = True
        elif does is Does.RESUME:
            assert held
            held = False
        elif does is Does.CANCEL:
            held = False
        assert interruption.held == held
    assert not held or interruption.tick(now + HELD_MS_MAX) is Does.RESUME
