"""Which dialect a call's backend speaks, and at which rate the call runs. Pure."""

from __future__ import annotations

from regions.agents.dialect import Dialect
from regions.agents.exotel import ExotelDialect
from regions.agents.native import NativeDialect
from regions.agents.teler import TelerDialect
from regions.agents.twilio import TwilioDialect
from regions.media.codecs import ULAW_8K, Format
from regions.wire.sids import account_sid, call_sid
from regions.wire.ticket import DIALECT_RATES_HZ, Agent


def format_of(agent: Agent) -> Format:
    """In which a call with this backend runs."""
    rates_hz = DIALECT_RATES_HZ.get(agent.dialect, ())
    if not rates_hz or agent.dialect == "twilio":
        return ULAW_8K
    return Format("pcm16", agent.sample_rate if agent.sample_rate in rates_hz else rates_hz[0])


def dialect_of(agent: Agent, *, stream_sid: str, project: str, call: str, socket: int = 0) -> Dialect:
    """For the socket of that number. An edge that does not know the dialect is older than the API that took the call: it speaks
    the first one."""
    rate_hz = format_of(agent).rate_hz
    account, of_call = account_sid(project), call_sid(call, socket)
    match agent.dialect:
        case "native":
            return NativeDialect(rate_hz=rate_hz)
        case "teler":
            return TelerDialect(stream_id=stream_sid, project=project, call=call, rate_hz=rate_hz)
        case "exotel":
            return ExotelDialect(
                stream_sid=stream_sid, account_sid=account, call_sid=of_call, rate_hz=rate_hz
            )
    return TwilioDialect(stream_sid=stream_sid, account_sid=account, call_sid=of_call)
