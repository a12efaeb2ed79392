"""What is changed in an answer before the caller gets it. Pure."""

from __future__ import annotations

import re

_OPUS_LINE = re.compile(r"^a=rtpmap:(\d+) opus/48000", re.MULTILINE | re.IGNORECASE)


def without_silence(sdp: str) -> str:
    """The caller is asked not to send silence (RFC 7587, 6.1), as its offer has asked. Never unasked: after silence not sent,
    libwebrtc hands a voice out later, and an interruption is heard later."""
    if (opus := _OPUS_LINE.search(sdp)) is None or "usedtx=" in sdp:
        return sdp
    return re.sub(rf"^(a=fmtp:{opus[1]} [^\r\n]*)", r"\1;usedtx=1", sdp, flags=re.MULTILINE)
