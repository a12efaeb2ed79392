"""What the agent says on a call: its audio in the `Playout`, its words in `Utterances`, and what the log should know of both.

Pure. Decides what of an utterance counts as said: all of it once it has been played, what was heard of it when it was cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from regions.edge.utterances import Utterances
from regions.media.playout import Playout, Popped
from regions.wire.media import Position
from regions.wire.snapshot import CallSnapshot, Turn, Word

TICK_MS = 1_000
Fact = tuple[str, dict[str, object]]
"""Type and data of an event to record."""


@dataclass(frozen=True, slots=True)
class Cut:
    """An utterance that was interrupted at `at`; `heard` is the part of its text that was played."""

    at: Position
    heard: str
    facts: list[Fact]


class AgentSpeech:
    def __init__(self, utterance: int = 0) -> None:
        """`utterance`: the number of the last one that an earlier owner has played."""
        self._playout = Playout(utterance)
        self._utterances = Utterances()
        self._broken: set[int] = set()

    @property
    def active(self) -> bool:
        """Something is being played, or waits to be."""
        return self._playout.active

    @property
    def last_utterance(self) -> int:
        """The newest that a backend has begun."""
        return self._playout.last_utterance

    def push(self, ulaw: bytes) -> None:
        self._playout.push(ulaw)

    def mark(self, name: str) -> None:
        self._playout.mark(name)

    def end(self) -> None:
        """The backend has sent all of this utterance."""
        self._playout.end_utterance()

    def broken_off(self) -> None:
        """The backend is gone. What has come is played; what had not, of the utterance that was being sent, is not said."""
        if self._playout.receiving:
            self._broken.add(self._playout.next_utterance)
            said = self._utterances.of(self._playout.next_utterance)
            if said is not None:
                said.length_ms = self._playout.received_ms
        self._playout.end_utterance()
        self._playout.forget_marks()
        for number, _ in self._utterances.since(self._playout.next_utterance):
            self._utterances.drop(number)

    def unheard(self) -> list[Turn]:
        """What is still to be heard of the agent, as it will stand in the conversation if nobody interrupts."""
        first = self._playout.position.utterance or 1
        turns = []
        for number, said in self._utterances.since(first):
            broken = number in self._broken
            words = said.heard(said.length_ms) if broken else said.text
            if words:
                turns.append(Turn(role="agent", text=words, interrupted=broken))
        return turns

    def announce(self, text: str, words: list[Word]) -> None:
        """The text of the utterance that is being sent, or of the next one."""
        self._utterances.announce(self._playout.next_utterance, text, words)

    def pop(self) -> Popped | None:
        return self._playout.pop()

    def facts(self, popped: Popped) -> list[Fact]:
        """What has happened with this frame."""
        utterance = popped.utterance
        found: list[Fact] = []
        if popped.started:
            found.append(("playback.started", {"utterance": utterance}))
        if popped.done and utterance in self._broken:
            return [*found, *self._ran_out(Position(utterance=utterance, offset_ms=popped.offset_ms))]
        if popped.done:
            found.append(("playback.done", {"utterance": utterance, "length_ms": popped.offset_ms}))
            said = self._utterances.of(utterance)
            if said is not None and said.text:
                found.append(("turn.ended", {"role": "agent", "text": said.text, "utterance": utterance}))
            self._utterances.drop(utterance)
        return found

    def tick(self, popped: Popped) -> bytes | None:
        """Once a second of an utterance that is being played: how far it is, for whoever listens at the moment."""
        if popped.frame is None or popped.done or popped.offset_ms < TICK_MS or popped.offset_ms % TICK_MS:
            return None
        return msgspec.json.encode({"utterance": popped.utterance, "offset_ms": popped.offset_ms})

    def _ran_out(self, at: Position) -> list[Fact]:
        """Of an utterance that its backend did not live to end, all that had come has been played."""
        self._broken.discard(at.utterance)
        said = self._utterances.of(at.utterance)
        facts: list[Fact] = [
            (
                "playback.interrupted",
                {"utterance": at.utterance, "offset_ms": at.offset_ms, "by": "agent_lost"},
            )
        ]
        if said is not None and said.text:
            facts.append(self._interrupted(at, said.heard(at.offset_ms)))
        return facts

    def clear(self, by: str) -> tuple[tuple[str, ...], Cut | None]:
        """Empties the playout: the marks that were passed over, and what was cut, if anything was."""
        receiving = self._playout.next_utterance
        cleared = self._playout.clear()
        self._broken.clear()
        if not cleared.was_playing:
            self._utterances.drop(receiving)
            return cleared.marks, None
        at = cleared.position
        facts: list[Fact] = [
            ("playback.interrupted", {"utterance": at.utterance, "offset_ms": at.offset_ms, "by": by})
        ]
        said = self._utterances.of(at.utterance)
        heard = ""
        if said is not None:
            said.length_ms = at.offset_ms + cleared.dropped_ms
            heard = said.heard(at.offset_ms)
            facts.append(self._interrupted(at, heard))
        return cleared.marks, Cut(at, heard, facts)

    def cut_before(self, at: Position, text: str, words: list[Word]) -> list[Fact]:
        """An utterance that an earlier owner was playing when it was lost."""
        if not at.utterance or not text:
            return []
        self._utterances.announce(at.utterance, text, words)
        said = self._utterances.of(at.utterance)
        return [self._interrupted(at, said.heard(at.offset_ms) if said else "")]

    def into(self, snapshot: CallSnapshot) -> None:
        """Fills in where the playback stands."""
        position = self._playout.position
        said = self._utterances.of(position.utterance) if position.utterance else None
        snapshot.playing = position
        snapshot.utterance = self._playout.last_utterance
        if said is not None:
            snapshot.playing_text, snapshot.playing_words = said.text, said.words

    def _interrupted(self, at: Position, heard: str) -> Fact:
        self._utterances.drop(at.utterance)
        return "turn.interrupted", {
            "role": "agent",
            "text": heard,
            "utterance": at.utterance,
            "offset_ms": at.offset_ms,
        }
