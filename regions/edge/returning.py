"""A call on its way back: after another edge had it, or after its backend was lost. What the log and the caller are told of it.

Decides when it is back: once a frame of the caller's has been given to the backend that is there, and audio of that backend has
been played to the caller. A caller that sends keep-alives instead of audio is silent, and its silence counts; a backend that
says nothing does not. Until then it is one and the same absence, however often a backend comes and goes.
"""

from __future__ import annotations

import structlog

from regions.agents.connection import Ending
from regions.edge.agent_leg import Dialled
from regions.edge.backend_counts import BackendCounts
from regions.edge.caller_leg import CallerLeg
from regions.edge.journal import Journal
from regions.media.hold_sound import HoldSound
from regions.wire.ticket import Grant, Reconnect

log = structlog.get_logger()


class Returning:
    def __init__(
        self, journal: Journal, caller: CallerLeg, grant: Grant, wanted: Reconnect, counts: BackendCounts
    ) -> None:
        self._journal = journal
        self._caller = caller
        self._grant = grant
        self._wanted = wanted
        self._counts = counts
        self._call = journal.outbox.call
        self._from_epoch: int | None = None
        self._sound = HoldSound(wanted.sound)
        self._old_utterance = 0
        self._lost_ms: int | None = None
        self._said = False
        """The log has it that the call is on its way back."""
        self._agent_there = False
        self._given = self._played = False
        self.caller_heard = False

    def taken(self, from_epoch: int, now_ms: int, *, planned: bool) -> None:
        """This edge has taken the call. The log says so already, and after a failure that it is on its way back."""
        self._from_epoch, self._said = from_epoch, not planned
        self._sound.lost(now_ms)

    def agent_lost(self, ending: Ending, utterance: int, now_ms: int) -> None:
        """`utterance`: the last that this backend has begun; what is left of it is still played."""
        self._counts.lost[ending.why] += 1
        self._agent_there = self._given = self._played = False
        self._old_utterance = utterance
        log.info("agent.lost", call=self._call, epoch=self._grant.epoch, why=ending.why, code=ending.code)
        self.agent_away(now_ms)

    def agent_away(self, now_ms: int) -> None:
        """There is no backend, and one is being dialled."""
        self._sound.lost(now_ms)
        epoch = self._grant.epoch
        self._from_epoch = epoch if self._from_epoch is None else self._from_epoch
        if not self._said:
            self._said = True
            data: dict[str, object] = {
                "from_epoch": self._from_epoch,
                "to_epoch": epoch,
                "reason": "agent_lost",
            }
            self._journal.record("call.reconnecting", data)
        if self._lost_ms is None:
            self._lost_ms = now_ms
            self.tell_caller()

    def tell_caller(self) -> None:
        """Again, where it comes with a new socket."""
        if self._lost_ms is not None and not self._agent_there:
            wanted = self._wanted
            self._caller.notice(
                "call.reconnecting",
                {"reason": "agent_lost", "sound": wanted.sound, "deadline_s": wanted.deadline_s},
            )

    def agent_up(self, dialled: Dialled, waited: dict[str, object], now_ms: int) -> None:
        """`waited`: what of the caller's audio was kept for it."""
        self._agent_there = True
        self._sound.up(now_ms)
        data: dict[str, object] = {"fallback": dialled.fallback, "resumed": dialled.resumed}
        if self._lost_ms is not None:
            data |= {"attempts": dialled.attempts, "away_ms": now_ms - self._lost_ms, **waited}
        self._journal.record("agent.connected", data)
        if self._from_epoch is not None:
            self._caller.notice("agent.connected", data)

    def given(self) -> None:
        """A frame of the caller's, to the backend that is there."""
        if self._from_epoch is not None and not self._given and self.caller_heard:
            self._given = True
            self._back()

    def played(self, utterance: int, now_ms: int) -> None:
        """Audio of the agent's, to the caller."""
        if self._from_epoch is None:
            return
        new = self._agent_there and utterance > self._old_utterance
        self._sound.spoken(now_ms, new=new)
        if new and not self._played:
            self._played = True
            self._log_back(now_ms)
            self._back()

    def sound(self, now_ms: int) -> bytes | None:
        """What the caller hears in this turn, in which nothing of the agent's is played."""
        return self._sound.frame(now_ms)

    def over(self, dialled: Dialled | None, now_ms: int) -> None:
        """The call ends, or goes elsewhere. `dialled`: because no backend was to be had."""
        lost_ms, self._lost_ms = self._lost_ms, None
        if lost_ms is None:
            return
        outcome = "gave_up" if dialled is not None else "reconnected" if self._agent_there else "left"
        self._counts.over(outcome, (now_ms - lost_ms) / 1000)
        if dialled is not None:
            log.warning(
                "agent.given_up",
                call=self._call,
                epoch=self._grant.epoch,
                code=dialled.code,
                attempts=dialled.attempts,
                away_ms=now_ms - lost_ms,
            )

    def _log_back(self, now_ms: int) -> None:
        lost_ms, self._lost_ms = self._lost_ms, None
        if lost_ms is not None:
            self._counts.over("reconnected", (now_ms - lost_ms) / 1000)
            log.info("agent.back", call=self._call, epoch=self._grant.epoch, away_ms=now_ms - lost_ms)

    def _back(self) -> None:
        if not (self._given and self._played):
            return
        data: dict[str, object] = {"from_epoch": self._from_epoch, "region": self._grant.region}
        self._sound = HoldSound(self._wanted.sound)
        self._from_epoch, self._said = None, False
        self._journal.record("call.reconnected", data)
        self._caller.notice("call.reconnected", data)
