"""What the agent says on a call: its audio in the `Playout`, its words in `Utterances`, and what the log should know of both.

Pure. Decides what of an utterance counts as said: all of it once it has been played, what was heard of it when it was cut.

After the caller has cut it, the agent is *mute* until the caller is quiet: what its backend goes on sending waits, and is gone with
its `clear`. A backend that announces what it says has shown where an utterance begins: the rest of the one that was cut is dropped
until it announces or ends one. Whoever clears knows of the interruption, and is heard at once; so is one who announces, once what was
under way when it was cut has come.

An utterance that a failure cut is *awaited*, where its backend had named it: the next backend may go on with it from where the caller
stopped hearing it. It counts as interrupted as soon as something else is said, by whomever.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from regions.edge.utterances import Utterances
from regions.media.codecs import ULAW_8K, Format
from regions.media.playout import Playout, Popped
from regions.wire.media import Position
from regions.wire.snapshot import CallSnapshot, Turn, Word

TICK_MS = 1_000
Fact = tuple[str, dict[str, object]]
"""Type and data of an event to record."""


@dataclass(frozen=True, slots=True)
class Cut:
    """An utterance that was interrupted at `at`; `heard` is the part of its text that was played, `id` the backend's
    own name for it."""

    at: Position
    heard: str
    facts: list[Fact]
    id: str = ""


@dataclass(frozen=True, slots=True)
class Awaited:
    """The utterance `id`, which the caller has heard up to `at`."""

    id: str
    at: Position


NO_FACTS: list[Fact] = []


class AgentSpeech:
    def __init__(self, utterance: int = 0, inner: Format = ULAW_8K) -> None:
        """`utterance`: the number of the last one that an earlier owner has played."""
        self._inner = inner
        self._playout = Playout(utterance, inner)
        self._utterances = Utterances()
        self._broken: set[int] = set()
        self._stale = self._mute = self._under_way = False
        self.awaited: Awaited | None = None
        self._continued = 0

    def follow(self, utterance: int) -> None:
        """Begins after the last utterance of an earlier owner."""
        self._playout = Playout(utterance, self._inner)

    @property
    def standing(self) -> Position:
        """What has been sent to the caller of what is being played, or will be next."""
        return self._playout.standing

    @property
    def active(self) -> bool:
        """Something is being played, or waits to be."""
        return self._playout.active

    @property
    def last_utterance(self) -> int:
        """The newest that a backend has begun."""
        return self._playout.last_utterance

    def push(self, audio: bytes) -> list[Fact]:
        """What is to be recorded, where this is not what was awaited."""
        facts = self.settle() if self.awaited is not None else NO_FACTS
        if not self._stale:
            self._playout.push(audio)
        return facts

    def begin(self, id_: str, offset_ms: int) -> list[Fact]:
        """The backend begins an utterance, or goes on with the awaited one. What is to be recorded of that."""
        awaited = self.awaited
        if awaited is not None and awaited.id == id_ and not self.active:
            self.awaited, self._continued = None, awaited.at.utterance
            self._playout.begin(Position(utterance=awaited.at.utterance, offset_ms=offset_ms))
            return NO_FACTS
        facts = self.settle()
        self.end()
        self._utterances.name(self._playout.next_utterance, id_)
        return facts

    def settle(self) -> list[Fact]:
        """The rest of what was awaited does not come."""
        awaited, self.awaited = self.awaited, None
        if awaited is None:
            return NO_FACTS
        return self._lost(awaited.at, "edge_lost")

    def hold(self) -> None:
        """Nothing is heard until it goes on, and nothing is lost."""
        self._playout.held = True

    def go_on(self, from_ms: int) -> Position:
        """After `hold`: from where the caller has heard it, as far as that is kept."""
        self._playout.go_on(from_ms)
        return self._playout.standing

    def unmute(self) -> None:
        """The caller is quiet, or the backend knows that it was interrupted."""
        if self._mute:
            self._playout.held = False
        self._stale = self._mute = self._under_way = False

    def arrived(self) -> None:
        """What the backend had sent before it knew that it was interrupted has come."""
        self._under_way = False

    def mark(self, name: str) -> None:
        self._playout.mark(name)

    def end(self) -> None:
        """The backend has sent all of this utterance."""
        if self._stale:
            self._stale = False
            return
        self._playout.end_utterance()

    def broken_off(self) -> None:
        """The backend is gone. What has come is played; what had not, of the utterance that was being sent, is not said."""
        self._stale = False
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
            if self.awaited is not None and number == self.awaited.at.utterance:
                continue
            broken = number in self._broken
            words = said.heard(said.length_ms) if broken else said.text
            if words:
                turns.append(Turn(role="agent", text=words, interrupted=broken))
        return turns

    def announce(self, text: str, words: list[Word]) -> None:
        """The text of the utterance that is being sent, or of the next one."""
        self._stale = False
        if self._mute and not self._under_way:
            self.unmute()
        if self._playout.next_utterance != self._continued:
            self._utterances.announce(self._playout.next_utterance, text, words)

    def pop(self) -> Popped | None:
        return self._playout.pop()

    def facts(self, popped: Popped) -> list[Fact]:
        """What has happened with this frame."""
        utterance = popped.utterance
        found: list[Fact] = []
        if popped.started:
            data: dict[str, object] = {"utterance": utterance}
            found.append(
                ("playback.started", data | {"offset_ms": popped.offset_ms} if popped.offset_ms else data)
            )
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
        return self._lost(at, "agent_lost")

    def _lost(self, at: Position, by: str) -> list[Fact]:
        """The rest of it never comes."""
        facts: list[Fact] = [_cut_at(at, by)]
        said = self._utterances.of(at.utterance)
        if said is not None and said.text:
            facts.append(self._interrupted(at, said.heard(at.offset_ms)))
        self._utterances.drop(at.utterance)
        return facts

    def cancel(self, chunk: bytes | None) -> bool:
        """Takes back what of that chunk is not played yet. False where none is named, and so everything is meant."""
        if chunk is not None:
            self._playout.cancel(chunk)
        return chunk is not None

    def clear(self, by: str, heard_ms: int | None = None) -> tuple[tuple[str, ...], Cut | None]:
        """Empties the playout: the marks that were passed over, and what was cut, if anything was. `heard_ms`: of what was being
        played, as the caller says. Where it was the caller's doing, the agent is mute from then on."""
        receiving = self._playout.next_utterance
        sending = self._playout.receiving
        cleared = self._playout.clear(heard_ms)
        self._broken.clear()
        self._mute = self._under_way = self._playout.held = by == "caller"
        announced = self._utterances.of(receiving)
        self._stale = self._mute and sending and announced is not None and bool(announced.text)
        if not cleared.was_playing:
            self._utterances.drop(receiving)
            return cleared.marks, None
        at = cleared.position
        facts = [_cut_at(at, by)]
        said = self._utterances.of(at.utterance)
        heard = ""
        if said is not None:
            said.length_ms = at.offset_ms + cleared.dropped_ms
            heard = said.heard(at.offset_ms)
            facts.append(self._interrupted(at, heard))
        return cleared.marks, Cut(at, heard, facts, said.id if said is not None else "")

    def cut_before(self, at: Position, text: str, words: list[Word], id_: str = "") -> list[Fact]:
        """An utterance that an earlier owner was playing when it was lost. With an `id_`, its rest is awaited."""
        if not at.utterance:
            return NO_FACTS
        if text:
            self._utterances.announce(at.utterance, text, words)
        if not id_:
            return self._lost(at, "edge_lost")
        self._utterances.name(at.utterance, id_)
        self.awaited = Awaited(id_, at)
        return NO_FACTS

    def into(self, snapshot: CallSnapshot) -> None:
        """Fills in where the playback stands."""
        position = self.awaited.at if self.awaited is not None else self._playout.position
        said = self._utterances.of(position.utterance) if position.utterance else None
        snapshot.playing = position
        snapshot.utterance = self._playout.last_utterance
        if said is not None:
            snapshot.playing_text, snapshot.playing_words, snapshot.playing_id = (
                said.text,
                said.words,
                said.id,
            )

    def _interrupted(self, at: Position, heard: str) -> Fact:
        self._utterances.drop(at.utterance)
        return "turn.interrupted", {
            "role": "agent",
            "text": heard,
            "utterance": at.utterance,
            "offset_ms": at.offset_ms,
        }


def _cut_at(at: Position, by: str) -> Fact:
    return "playback.interrupted", {"utterance": at.utterance, "offset_ms": at.offset_ms, "by": by}
