"""What a backend tells and asks beside its audio: transcripts, ends of turns, tools, the conversation.

Decides what becomes of each kind. Leaves the reading to `agents.text`, tools and questions to `Recall`, what was heard of an
utterance to `AgentSpeech`, whose turn it is to `Floor`. What cannot be read is logged and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from regions.agents import text
from regions.edge.floor import Floor
from regions.edge.journal import Journal
from regions.edge.recall import Recall
from regions.edge.speech import AgentSpeech

log = structlog.get_logger()


class Told:
    """`live`: forwards a volatile event."""

    def __init__(
        self, journal: Journal, recall: Recall, floor: Floor, live: Callable[[str, bytes], None]
    ) -> None:
        self._journal = journal
        self._recall = recall
        self._floor = floor
        self._live = live

    def take(self, type_: str, data: bytes, speech: AgentSpeech, now_ms: int) -> None:
        try:
            self._take(type_, data, speech, now_ms)
        except text.Unreadable as error:
            log.info("agent.unreadable", call=self._journal.outbox.call, type=type_[:32], error=str(error))

    def _take(self, type_: str, data: bytes, speech: AgentSpeech, now_ms: int) -> None:
        match type_:
            case "transcript.partial":
                if text.fits_volatile(data):
                    self._live(type_, data)
                    said = text.said(data)
                    if said.role == "caller":
                        self._floor.understood(said.text, final=False)
            case "transcript.final":
                said = text.said(data)
                if said.role == "agent":
                    speech.announce(said.text, said.words)
                elif said.text:
                    self._journal.record(type_, {"role": "caller", "text": said.text})
                    self._floor.understood(said.text, final=True)
            case "turn.ended":
                said = text.said(data)
                if said.role == "agent":
                    speech.end()
                elif said.role == "caller":
                    self._floor.turn_ended(said.text)
            case "turn.timing":
                self._floor.answers.reported(text.timing(data))
            case "tool.called" | "tool.result" | "conversation.get":
                if type_ == "tool.called":
                    self._floor.listening.answered()
                self._recall.on_text(type_, data, now_ms)
