"""Who has the floor of a call: what the caller's voice means for the agent's, and what everybody is told of it.

Leaves when a turn begins and ends to `TurnDetector`, what an interruption does to `BargeIn`, positions to `AgentSpeech`, which turn
of the caller's is written to `CallerTurns`: it carries out what they say. Runs on the event loop and never waits. Frames are heard
as they come; every 20 ms the session calls `turn`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from regions.edge.agent_leg import AgentLeg
from regions.edge.answers import Answers
from regions.edge.caller_leg import CallerLeg
from regions.edge.caller_turns import CallerTurns, Data
from regions.edge.journal import Journal
from regions.edge.listening import Listening
from regions.edge.played import Played
from regions.edge.pressed import Presses
from regions.edge.speech import AgentSpeech
from regions.media.barge_in import BargeIn, Does
from regions.media.codecs import FRAME_MS, ULAW_8K, Ear, Format
from regions.media.turns import Ended, Fact, Phase, Started, Stopped, TurnDetector
from regions.media.voice_activity import VoiceDetector
from regions.wire import media as wire
from regions.wire.ticket import Turns

ANSWER_WITHIN_MS = 400
"""After a hold that was no interruption, so long the caller's word is waited for: how much it had played."""
REST_WITHIN_MS = 3_000
"""So long a new backend has to go on with an utterance that was cut."""
FLIPS_MAX = 32
"""Of a button, within what is on its way to the agent: 400 ms."""
UNDER_WAY_MS = 300
"""So long after it was cut, what a backend announces may be older than that."""
MUTE_MS, MUTE_MS_MAX = 500, 10_000
"""So long the agent is mute after it was cut by a word that was over, and at most by a voice that goes on: what the line brings in
may be somebody else's."""


class Floor:
    """`voice`: makes the call's detector, once something is to be heard. `stamp`: the lease's, now. `elapsed_ms`: since the
    answer. `inner`: the format that the call runs in."""

    def __init__(
        self,
        turns: Turns,
        voice: Callable[[], VoiceDetector],
        journal: Journal,
        caller: CallerLeg,
        agent: AgentLeg,
        speech: AgentSpeech,
        stamp: Callable[[], int],
        elapsed_ms: Callable[[], int],
        answers: Answers,
        presses: Presses,
        inner: Format = ULAW_8K,
    ) -> None:
        self._turns = turns
        self._new_voice = voice
        self._voice: VoiceDetector | None = None
        self._journal = journal
        self._caller = caller
        self._agent = agent
        self._speech = speech
        self._stamp = stamp
        self._elapsed_ms = elapsed_ms
        self.answers = answers
        self._silence = inner.silence
        self._ear = Ear(inner)
        self._detector = TurnDetector(turns)
        self._barge_in = BargeIn(turns)
        self._written = CallerTurns()
        self.listening = Listening(caller.buffer)
        self.played = Played()
        self._held_at = wire.Position()
        self._held_stamp = 0
        self._holding = False
        self._goes_on_by_ms: int | None = None
        self._missed = True
        self._frames = 0
        self._open = False
        self._flips: deque[tuple[int, bool]] = deque(maxlen=FLIPS_MAX)
        self._presses = presses
        self._cut_ms = 0
        self._mute_until_ms: int | None = None
        self._rest_by_ms: int | None = None

    # ------------------------------------------------------------------------------------------------ the caller

    def hear(self) -> None:
        """What has come of the caller's."""
        for frame in self._caller.buffer.fresh():
            self._missed = False
            if self._turns.mode != "auto":
                continue
            if self._voice is None:
                self._voice = self._new_voice()
            sound = self._voice.feed(self._ear(frame))
            self._found(self._detector.hear(sound, offset_ms=self._elapsed_ms(), agent=self._speech.active))

    @property
    def speaking(self) -> bool:
        """The caller is heard to speak, the pauses within what it says included."""
        return self._detector.open

    @property
    def voiced(self) -> bool | None:
        """The same, as long as somebody listens for it."""
        return self._detector.open if self._turns.mode == "auto" else None

    def talk(self, on: bool) -> None:
        """The caller's button. It counts for what comes from now on, not for what is still on its way to the agent."""
        if on and not self._presses.count(self._elapsed_ms()):
            return
        self._flips.append((self._frames + self._caller.buffer.frames, on))
        self._found(self._detector.talk(on, offset_ms=self._elapsed_ms(), agent=self._speech.active))

    def given(self, frame: bytes) -> bytes:
        """What of a frame the agent is to hear: with a button, only what was said while it was pressed."""
        if self._turns.mode != "push_to_talk":
            return frame
        while self._flips and self._flips[0][0] <= self._frames:
            self._open = self._flips.popleft()[1]
        self._frames += 1
        return frame if self._open else self._silence

    def turn(self) -> None:
        """Call once in 20 ms."""
        now_ms = self._elapsed_ms()
        if self._missed:
            self._found(self._detector.missed(offset_ms=now_ms, agent=self._speech.active))
        self._missed = True
        self._do(self._barge_in.tick(now_ms), now_ms)
        if self._goes_on_by_ms is not None:
            self._go_on(now_ms)
        if self._mute_until_ms is not None:
            if now_ms >= self._mute_until_ms:
                self._unmute()
            elif now_ms - self._cut_ms >= UNDER_WAY_MS:
                self._speech.arrived()
        if self._rest_by_ms is not None and now_ms >= self._rest_by_ms:
            self._rest_by_ms = None
            self._journal.record_all(self._speech.settle())
        self._write(self._written.due(now_ms))

    # ----------------------------------------------------------------------------------------------- the backend

    def understood(self, text: str, *, final: bool) -> None:
        """A transcript of the caller's."""
        now_ms = self._elapsed_ms()
        self._detector.hint(text)
        if text.strip():
            self._do(self._barge_in.word(now_ms, agent=self._speech.active), now_ms)
        if final and self._turns.mode != "off":
            self._written.final(text, now_ms)

    def turn_ended(self, text: str) -> None:
        """The backend says that the caller's turn is over."""
        self.listening.answered()
        self._write(self._written.theirs(text))

    def answered(self, utterance: int) -> None:
        """The agent begins to be heard."""
        self.answers.played(utterance)
        self.listening.answered()
        self._write(self._written.flush())

    def agent_up(self) -> None:
        """It is told of an utterance that was cut, and may go on with it."""
        self._rest_by_ms = self._elapsed_ms() + REST_WITHIN_MS

    def agent_lost(self) -> None:
        """Its successor hears what it had not answered, and may report turns in another way."""
        self.listening.again()
        self._written.forget()

    def interrupt(self, by: str) -> None:
        """The agent is silenced, whoever wants it: `caller` or `agent`. What of the utterance was heard stays in the conversation."""
        heard_ms = self._heard_ms()
        told, self._holding = self._holding, False
        self._barge_in.cleared()
        self._goes_on_by_ms = None
        marks, cut = self._speech.clear(by, heard_ms)
        self.echo(marks)
        if cut is None:
            return
        if not told:
            self._caller.tell(wire.Clear(stamp=self._stamp(), at=cut.at))
        for type_, data in cut.facts:
            self._journal.record(type_, data)
        if by == "caller":
            self._cut_ms = self._elapsed_ms()
            self._mute_until_ms = self._cut_ms + (MUTE_MS_MAX if self._detector.open else MUTE_MS)
            at = cut.at
            told_of: Data = {"utterance": at.utterance, "offset_ms": at.offset_ms, "text": cut.heard}
            self._tell("playback.interrupted", told_of | {"id": cut.id} if cut.id else told_of)

    def echo(self, names: tuple[str, ...]) -> None:
        """Marks that have been played, or passed over."""
        if (agent := self._agent.connection) is not None:
            for name in names:
                agent.send_mark(name)

    def end(self) -> None:
        """The call ends, or goes elsewhere."""
        self._journal.record_all(self._speech.settle())
        _, cut = self._speech.clear("end", self._heard_ms())
        for type_, data in cut.facts if cut is not None else []:
            self._journal.record(type_, data)
        self._write(self._written.flush())

    def close(self) -> None:
        """Nothing is heard here any more."""
        voice, self._voice = self._voice, None
        if voice is not None:
            voice.close()

    # --------------------------------------------------------------------------------------------- what is found

    def _found(self, facts: list[Fact]) -> None:
        now_ms = self._elapsed_ms()
        for fact in facts:
            match fact:
                case Started():
                    self._started(fact, now_ms)
                case Stopped():
                    self.answers.stopped(now_ms - fact.at_ms, self._caller.buffer.frames * FRAME_MS)
                    self._say("speech.stopped", {"offset_ms": fact.at_ms})
                    if self._do(self._barge_in.quiet(), now_ms):
                        # it was no interruption, so it is no turn either
                        self._detector.void()
                        self._written.void()
                        self.listening.voice(False)
                        return
                case Ended():
                    self._ended(fact, now_ms)
        if self._barge_in.held and self._detector.phase is Phase.SPEAKING:
            self._do(self._barge_in.spoken(self._detector.voiced_ms), now_ms)

    def _started(self, started: Started, now_ms: int) -> None:
        self._write(self._written.started())
        self._journal.record_all(self._speech.settle())
        self.answers.begun()
        self._say("speech.started", {"offset_ms": started.at_ms, "barge_in": started.over_agent})
        self.listening.voice(True)
        sure = self._turns.mode == "push_to_talk"
        self._do(self._barge_in.started(now_ms, agent=self._speech.active, sure=sure), now_ms)

    def _ended(self, ended: Ended, now_ms: int) -> None:
        self.answers.turn_over()
        times = {
            "started_ms": ended.started_ms,
            "stopped_ms": ended.stopped_ms,
            "waited_ms": ended.waited_ms,
        }
        self._tell("turn.ended", {"role": "caller", **times, "by": ended.by})
        self.listening.voice(False)
        self._unmute()
        self._write(self._written.ended(ended, now_ms))

    def _do(self, does: Does | None, now_ms: int) -> bool:
        match does:
            case None:
                return False
            case Does.HOLD:
                self._hold()
            case Does.CANCEL:
                self.interrupt("caller")
            case Does.RESUME:
                self._goes_on_by_ms = now_ms + ANSWER_WITHIN_MS
                self._go_on(now_ms)
        return True

    def _hold(self) -> None:
        """Again, where the caller's word about the hold before is still waited for: nothing was sent since."""
        self._speech.hold()
        if not self._holding:
            self._holding = True
            self._held_at, self._held_stamp = self._speech.standing, self._stamp()
            self._caller.tell(wire.Clear(stamp=self._held_stamp, at=self._held_at))
        self._goes_on_by_ms = None

    def _go_on(self, now_ms: int) -> None:
        """As soon as the caller has said what it had played, or after a while without that."""
        heard_ms = self._heard_ms()
        assert self._goes_on_by_ms is not None
        if heard_ms is None and self.played.tells and now_ms < self._goes_on_by_ms:
            return
        self._goes_on_by_ms, self._holding = None, False
        position = self._speech.go_on(self._held_at.offset_ms if heard_ms is None else heard_ms)
        data: Data = {
            "utterance": position.utterance,
            "offset_ms": position.offset_ms,
            "voiced_ms": self._barge_in.spoken_ms,
            "held_ms": self._barge_in.held_ms(now_ms),
        }
        self._journal.record("turn.false_interruption", data)

    def _heard_ms(self) -> int | None:
        """How much of the utterance that is held the caller has heard."""
        if not self._holding:
            return None
        return self.played.heard_ms(self._held_at, self._held_stamp)

    def _unmute(self) -> None:
        self._mute_until_ms = None
        self._speech.unmute()

    def _write(self, turn: Data | None) -> None:
        if turn is not None:
            self._journal.record("turn.ended", turn)

    def _say(self, type_: str, data: Data) -> None:
        """To the log and to the backend."""
        self._journal.record(type_, data)
        self._tell(type_, data)

    def _tell(self, type_: str, data: Data) -> None:
        if (agent := self._agent.connection) is not None:
            agent.send_text(type_, data)
