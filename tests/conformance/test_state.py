"""The state of a call is folded twice, in Python and under the lock in the database: they must agree."""

from __future__ import annotations

import asyncpg
import pytest

from app.calls.machine import FINAL, CallState, state_after
from regions.wire.events import EVENT_TYPES, EndReason
from tests.support.api import Api


@pytest.mark.parametrize("answered", [True, False])
async def test_the_two_folds_agree_on_every_event(api: Api, answered: bool) -> None:
    reasons = [None, "busy", "something else", *EndReason]
    connection = await asyncpg.connect(api.settings.database_url)
    try:
        for state in (CallState.RINGING, CallState.IN_PROGRESS, CallState.RECONNECTING):
            for type_ in EVENT_TYPES:
                for reason in reasons if type_ == "call.ended" else [None]:
                    stored = await connection.fetchval(
                        "select vx.state_after($1, $2, $3)", type_, reason, answered
                    )
                    ours = state_after(state, type_, end_reason=reason, answered=answered)
                    assert ours == (stored or state), (state, type_, reason)
    finally:
        await connection.close()


def test_a_final_state_stays() -> None:
    for state in FINAL:
        assert state_after(state, "call.answered") is state
        assert state_after(state, "call.ended", end_reason="busy") is state
