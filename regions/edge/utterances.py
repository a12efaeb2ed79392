"""What the backend has announced to say, by utterance, and how much of it was heard. Pure.

Word offsets, where the backend gives them, cut exactly; without them the text is cut in proportion, at a word's end.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from regions.wire.snapshot import Word

KEPT_MAX = 8
CHARS_MAX = 8_000
WORDS_MAX = 1_000
"""Of one utterance; what is announced beyond is not remembered."""


@dataclass(slots=True)
class Said:
    """`length_ms`: of the audio, once all of it has come; 0 before. `id`: the backend's own name for it."""

    texts: list[str] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    length_ms: int = 0
    over: bool = False
    id: str = ""

    @property
    def text(self) -> str:
        return " ".join(t for t in self.texts if t)

    def heard(self, offset_ms: int) -> str:
        """What had been said by `offset_ms`."""
        if offset_ms <= 0:
            return ""
        if self.words:
            return " ".join(w.word for w in self.words if w.word and w.offset_ms < offset_ms)
        text = self.text
        if not self.length_ms or offset_ms >= self.length_ms:
            return text
        words = text.split(" ")
        return " ".join(words[: max(1, round(len(words) * offset_ms / self.length_ms))])


class Utterances:
    def __init__(self) -> None:
        self._said: OrderedDict[int, Said] = OrderedDict()

    def announce(self, utterance: int, text: str, words: list[Word]) -> None:
        said = self._said.setdefault(utterance, Said())
        room = CHARS_MAX - sum(map(len, said.texts))
        said.texts.append(text[: max(0, room)])
        said.words += words[: max(0, WORDS_MAX - len(said.words))]
        while len(self._said) > KEPT_MAX:
            self._said.popitem(last=False)

    def name(self, utterance: int, id_: str) -> None:
        """What the backend calls it."""
        if id_:
            self._said.setdefault(utterance, Said()).id = id_
            while len(self._said) > KEPT_MAX:
                self._said.popitem(last=False)

    def of(self, utterance: int) -> Said | None:
        return self._said.get(utterance)

    def since(self, utterance: int) -> list[tuple[int, Said]]:
        """That one and those after it, in their order."""
        return sorted((number, said) for number, said in self._said.items() if number >= utterance)

    def drop(self, utterance: int) -> None:
        self._said.pop(utterance, None)
