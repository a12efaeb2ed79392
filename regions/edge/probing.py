"""What listeners need to be probed and to witness: who is there, whether it is let in, and where the samples go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from regions.edge.peer import Networks, peer_of
from regions.edge.probe_gate import ProbeGate
from regions.edge.witnesses import Witnesses
from regions.wire.measuring import network_of

PINGS_EVERY_S = 2.0


@dataclass(slots=True)
class Probing:
    """`pings_every_s`: how often an attached caller is pinged; 0: never. `trusted`: proxies whose `X-Forwarded-For` counts."""

    pings_every_s: float = 0.0
    trusted: Networks = ()
    lingering: int = 0
    """Refused sockets that are given a moment to hear why."""
    gate: ProbeGate = field(default_factory=ProbeGate)
    witnesses: Witnesses = field(default_factory=Witnesses)

    def network(self, peername: object, forwarded: Sequence[str]) -> str | None:
        """Of the peer of a connection. `peername` as a transport names it; `forwarded`: every `X-Forwarded-For` of the request, in
        order: a proxy may add a line of its own below the one that the caller has made up."""
        address = str(peername[0]) if isinstance(peername, tuple | list) and peername else ""
        return network_of(peer_of(address, ",".join(forwarded), self.trusted))
