"""Whether a partial transcript looks as if its speaker were done. Pure, and a hint: it moves a waiting time within bounds.

The cases, in order:

1. nothing but spaces                                                → `Look.NOTHING`
2. it ends with a comma, colon, dash or ellipsis                     → `Look.UNFINISHED`
3. it ends with a mark that ends a sentence, in any script listed    → `Look.FINISHED`
4. its last word is one that English sentences hardly end with, or a
   filled pause                                                      → `Look.UNFINISHED`
5. else                                                              → `Look.NEITHER`
"""

from __future__ import annotations

from enum import Enum

GOES_ON = (",", ";", ":", "-", "–", "—", "…", "...", "、", "،")
ENDS = (".", "?", "!", "。", "？", "！", "।", "؟")
CLOSING = "\"'”’)]»"
LOOKED_AT_CHARS = 64
"""Of the end of the text: nothing before it is of interest."""
HARDLY_LAST = frozenset({
    "a", "an", "the", "and", "or", "but", "so", "because", "if", "when", "while", "than", "that", "which",
    "who", "whose", "my", "your", "his", "her", "its", "our", "their", "of", "to", "in", "on", "at", "by",
    "for", "from", "with", "without", "into", "about", "as", "is", "are", "was", "were", "be", "i", "we",
    "they", "he", "she", "um", "uh", "er", "erm", "hmm", "eh", "ehm",
})  # fmt: skip


class Look(Enum):
    NOTHING = "nothing"
    UNFINISHED = "unfinished"
    NEITHER = "neither"
    FINISHED = "finished"


def look(text: str) -> Look:
    end = text[-LOOKED_AT_CHARS:].strip().rstrip(CLOSING)
    if not end:
        return Look.NOTHING
    if end.endswith(GOES_ON):
        return Look.UNFINISHED
    if end.endswith(ENDS):
        return Look.FINISHED
    return Look.UNFINISHED if end.split()[-1].lower() in HARDLY_LAST else Look.NEITHER
