"""When a call ends by itself, and where the time of an answer went."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from regions.edge.closing import Closing
from regions.edge.endings import Endings
from regions.edge.stages import STAGES, TurnStages
from regions.wire.events import EndReason
from regions.wire.ticket import EndWhen


def ended(wanted: EndWhen, *spans: tuple[float, str]) -> tuple[EndReason, float] | None:
    """`spans`: for so many seconds ``c``aller, ``a``gent, ``ca`` both, ``-`` nobody, ``x`` no backend. The end, and when."""
    endings, now_ms = Endings(wanted, 0), 0
    for seconds, who in spans:
        for _ in range(round(seconds * 50)):
            reason = endings.turn(now_ms, backend=who != "x", caller="c" in who, agent="a" in who)
            if reason is not None:
                return reason, now_ms / 1_000
            now_ms += 20
    return None


def test_a_call_without_such_a_wish_goes_on() -> None:
    assert ended(EndWhen(), (100, "c"), (100, "-")) is None


def test_nobody_says_anything() -> None:
    assert ended(EndWhen(idle_s=10), (4, "a"), (4, "-"), (1, "c"), (20, "-")) == (EndReason.IDLE, 18.98)


def test_the_caller_is_silent_however_often_the_agent_asks() -> None:
    wanted = EndWhen(silence_s=10, idle_s=9)
    assert ended(wanted, (1, "c"), (5, "a"), (2, "-"), (20, "a")) == (EndReason.CALLER_SILENT, 10.98)


def test_a_monologue_is_speech_without_a_pause() -> None:
    wanted = EndWhen(monologue_s=5)
    assert ended(wanted, (4, "c"), (0.02, "-"), (4, "c"), (1, "a")) is None
    assert ended(wanted, (1, "-"), (4, "c"), (3, "ca")) == (EndReason.MONOLOGUE, 6.0)


def test_nothing_counts_while_there_is_no_backend_or_before_it() -> None:
    wanted = EndWhen(idle_s=3, silence_s=3, monologue_s=3)
    assert ended(wanted, (2, "-"), (20, "x"), (2.98, "-")) is None
    assert ended(wanted, (2, "-"), (20, "x"), (4, "-")) == (EndReason.CALLER_SILENT, 24.98)


def test_the_stages_of_an_answer_add_up_to_what_the_caller_waited() -> None:
    stages = TurnStages({"total": 500, "llm": 100, "tts": 100})
    for at_ms in range(0, 1_000, 20):
        stages.voice(at_ms, 40)
    stages.turn_over(1_300)
    stages.reported({"stt": 50, "llm": 150, "tts": 60, "nonsense": 5})
    stages.audio(1_600)
    stages.audio(1_620)
    answered = stages.played(1_610, 30)
    assert answered is not None
    assert answered.stages == {
        "capture": 20, "uplink": 15, "jitter": 40, "end_of_turn": 320, "stt": 50, "llm": 150, "tts": 60, "backend": 40,
        "pacing": 10, "downlink": 15,
    }  # fmt: skip
    assert (answered.total_ms, answered.exceeded) == (720, ["total", "llm"])
    assert stages.played(1_630, 30) is None


def test_a_greeting_answers_nobody() -> None:
    stages = TurnStages()
    stages.audio(100)
    assert stages.played(110, 10) is None


@given(
    st.lists(st.sampled_from(["voice", "over", "audio", "played"]), max_size=40),
    st.dictionaries(st.sampled_from(["stt", "llm", "tts", "x"]), st.floats(-1e9, 1e9)),
    st.floats(0, 2_000),
)
def test_no_stage_is_negative_whatever_comes_when(
    steps: list[str], said: dict[str, float], rtt_ms: float
) -> None:
    stages = TurnStages()
    for i, step in enumerate(steps):
        match step:
            case "voice":
                stages.voice(i * 20, i)
            case "over":
                stages.turn_over(i * 20)
                stages.reported(said)
            case "audio":
                stages.audio(i * 20)
            case _:
                answered = stages.played(i * 20, rtt_ms)
                if answered is not None:
                    assert set(answered.stages) <= set(STAGES)
                    assert min(answered.stages.values()) >= 0
                    assert sum(answered.stages.values()) == answered.total_ms


def test_the_first_reason_counts_and_what_was_said_is_heard() -> None:
    closing = Closing(60, EndWhen(), 0)
    assert closing.hung_up("resolved") == []
    closing.once_heard(EndReason.AGENT_LOST, {"detail": "x"})
    assert closing.wanted
    assert closing.turn(20, 20, backend=True, caller=False, agent=True) is None
    assert closing.turn(40, 40, backend=True, caller=False, agent=False) == (EndReason.RESOLVED, {})


def test_no_call_lasts_longer_than_it_may() -> None:
    closing = Closing(60, EndWhen(), 0)
    assert closing.turn(60_000, 60_000, backend=True, caller=True, agent=True) is None
    assert closing.turn(60_020, 60_020, backend=True, caller=True, agent=True) == (EndReason.MAX_DURATION, {})
