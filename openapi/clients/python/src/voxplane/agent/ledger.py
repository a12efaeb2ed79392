"""What the agent has said to the edge, and what of it the caller has heard. Pure: `now` is a parameter, in seconds.

An utterance is heard when its mark comes back. It is cut when the edge says so (`playback.interrupted`), or when the backend
clears it itself, of which the edge reports no position: then what was heard is reckoned from when the audio was sent. An edge that
cuts sends the marks of what it drops first, and the report right behind them: so marks that came just before a report are not
believed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from voxplane.agent.parts import Word

KEPT_MAX = 8


@dataclass(slots=True)
class Utterance:
    """`audio_ms`: of what was sent. `starts_s`: when it begins to be played, if nothing delays it. `sent`: all of it was.
    `from_ms`: where the audio begins, of one that was cut by a failure and goes on."""

    id: str
    text: str = ""
    words: list[Word] = field(default_factory=list)
    audio_ms: int = 0
    starts_s: float | None = None
    sent: bool = False
    from_ms: int = 0

    def at(self, now_s: float) -> int:
        """How far it has been played, by the clock."""
        if self.starts_s is None:
            return self.from_ms
        return self.from_ms + max(0, min(self.audio_ms, round((now_s - self.starts_s) * 1000)))

    def heard(self, offset_ms: int) -> str:
        """What had been said by then: by the words, else in proportion, as the edge reckons it."""
        if offset_ms <= 0:
            return ""
        if self.words:
            return " ".join(w.word for w in self.words if w.offset_ms < offset_ms)
        length_ms = self.from_ms + self.audio_ms
        if offset_ms >= length_ms:
            return self.text
        words = self.text.split()
        return " ".join(words[: max(1, round(len(words) * offset_ms / length_ms))])


@dataclass(frozen=True, slots=True)
class Outcome:
    """`heard`: all that the caller heard of it. `interrupted`: that is not all."""

    id: str
    heard: str
    interrupted: bool


class Ledger:
    """One socket's utterances, in the order in which they are played."""

    def __init__(self) -> None:
        self._open: dict[str, Utterance] = {}
        self._doubtful: dict[str, Utterance] = {}
        self._guessed: dict[str, Utterance] = {}
        self._free_s = 0.0

    @property
    def unheard(self) -> bool:
        """Something was sent, and may still be played."""
        return bool(self._open)

    def begin(self, utterance: Utterance) -> None:
        self._open[utterance.id] = utterance
        while len(self._open) > KEPT_MAX:
            del self._open[next(iter(self._open))]

    def audio(self, utterance: Utterance, ms: int, now_s: float) -> None:
        """More of it was sent."""
        if utterance.starts_s is None:
            utterance.starts_s = max(now_s, self._free_s)
        utterance.audio_ms += ms
        self._free_s = max(self._free_s, now_s) + ms / 1000

    def marked(self, id_: str) -> Outcome | None:
        """The edge has played all of it, or says so."""
        utterance = self._open.pop(id_, None)
        if utterance is None:
            return None
        self._doubtful[id_] = utterance
        return Outcome(id_, utterance.text, interrupted=False)

    def believe(self) -> None:
        """Something else has come since the last mark: it was no cut."""
        self._doubtful.clear()

    def drop(self, utterance: Utterance) -> None:
        """None of it was sent."""
        self._open.pop(utterance.id, None)

    def clear(self, now_s: float) -> list[Outcome]:
        """The backend cuts everything: what was heard of each, as far as the clock can tell."""
        cut, self._open, self._guessed = self._open, {}, self._open
        self._free_s = now_s
        return [_outcome(u, u.heard(u.at(now_s))) for u in cut.values()]

    def told(self, heard: str, offset_ms: int, id_: str, now_s: float) -> list[Outcome]:
        """The edge has cut one, and dropped those after it. `id_`: which, where the edge says it; `heard`: empty where it does
        not know the text."""
        candidates = self._doubtful | self._open or self._guessed
        self._doubtful, self._open, self._guessed = {}, {}, {}
        self._free_s = now_s
        cut = id_ if id_ in candidates else _which(candidates, heard)
        outcomes: list[Outcome] = []
        reached = False
        for name, utterance in candidates.items():
            if name == cut:
                reached = True
                outcomes.append(_outcome(utterance, heard or utterance.heard(offset_ms)))
            elif reached:
                outcomes.append(Outcome(name, "", interrupted=True))
            else:
                outcomes.append(Outcome(name, utterance.text, interrupted=False))
        return outcomes


def _outcome(utterance: Utterance, heard: str) -> Outcome:
    return Outcome(utterance.id, heard, interrupted=True)


def _which(candidates: dict[str, Utterance], heard: str) -> str | None:
    """The first one that begins so; else the first."""
    said = _plain(heard)
    for name, utterance in candidates.items():
        spoken = _plain(" ".join(w.word for w in utterance.words) or utterance.text)
        if spoken[: len(said)] == said:
            return name
    return next(iter(candidates), None)


def _plain(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalnum())
