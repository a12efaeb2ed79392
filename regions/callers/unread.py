"""What waits for a caller that does not read. Decides how much that may be, for audio and for the answers to pings alike."""

from __future__ import annotations

from picows import WSFrame, WSTransport

UNSENT_BYTES_MAX = 256 * 1024


def reads(transport: WSTransport) -> bool:
    """False: too much waits already, and the connection was cut. Its network is gone; it attaches again where it can."""
    if transport.underlying_transport.get_write_buffer_size() <= UNSENT_BYTES_MAX:
        return True
    transport.disconnect(False)
    return False


def answer(transport: WSTransport, ping: WSFrame) -> None:
    """The pong. The toolkit's own would pile up without end, for whoever pings and never reads: no ticket is needed for that."""
    if reads(transport):
        transport.send_pong(ping.get_payload_as_bytes())
