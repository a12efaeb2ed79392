"""How much probing one network, and all of them, may do here. Pure: `now_s` is a parameter, by any clock that only goes forward.

Decides who is let in and when it is too much; what a refused one is told is the listener's. Per /24 or /48: sockets at once, and
messages a second (a bucket of one second's worth); the same for the edge in all, so that a flood from everywhere costs a bounded
share of one core. A message has at most `MESSAGE_BYTES_MAX` bytes, so the messages bound the bytes too. The table has an end: the
network that has no socket and was not heard for longest is forgotten first, and begins anew with a full bucket; what it gains by
that ends at the limit in all.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

from regions.wire.edge_metrics import head

SOCKETS_PER_NETWORK_MAX = 64
SOCKETS_MAX = 512
MESSAGES_PER_NETWORK_S = 400.0
MESSAGES_S = 4_000.0
NETWORKS_MAX = 4_096
MESSAGES_PER_SOCKET_MAX = 100
MESSAGE_BYTES_MAX = 64
SOCKET_BYTES_MAX = 4_096
LIFETIME_S = 5.0

WORDS = {
    "network_sockets": "too many probes at once from your network",
    "edge_sockets": "too many probes at once",
    "network_rate": "too many probes a second from your network",
    "edge_rate": "too many probes a second",
    "socket_messages": "a socket takes 100 probes",
    "socket_bytes": "a socket takes 4096 bytes of probes",
    "message_bytes": "a probe has at most 64 bytes",
    "bad_nonce": "this nonce was not sent on this socket",
    "not_a_probe": "a probe is an id of 1 to 16 letters and digits, then a space and the newest nonce",
}
"""Why a probe was refused, and what is said with it; the names stand in the metrics."""


@dataclass(slots=True)
class _Bucket:
    """Fills by `rate` a second, up to one second's worth."""

    rate: float
    left: float
    at_s: float

    def take(self, now_s: float) -> bool:
        self.left = min(self.rate, self.left + max(0.0, now_s - self.at_s) * self.rate)
        self.at_s = max(self.at_s, now_s)
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True


@dataclass(slots=True)
class _Sender:
    messages: _Bucket
    sockets: int = 0


class ProbeGate:
    """`refused`: how often, by reason (`WORDS`)."""

    def __init__(
        self,
        *,
        sockets_per_network: int = SOCKETS_PER_NETWORK_MAX,
        sockets: int = SOCKETS_MAX,
        messages_per_network_s: float = MESSAGES_PER_NETWORK_S,
        messages_s: float = MESSAGES_S,
        networks: int = NETWORKS_MAX,
    ) -> None:
        self._sockets_per_network = sockets_per_network
        self._sockets_max = sockets
        self._per_network_s = messages_per_network_s
        self._networks_max = max(networks, sockets + 1)
        self._senders: OrderedDict[str, _Sender] = OrderedDict()
        self._all = _Bucket(messages_s, messages_s, 0.0)
        self.sockets = 0
        self.taken = 0
        self.refused: Counter[str] = Counter(dict.fromkeys(WORDS, 0))

    def __len__(self) -> int:
        return len(self._senders)

    def open(self, network: str, now_s: float) -> str | None:
        """A socket; None: it is in, until `closed`. Else why not."""
        sender = self._sender(network, now_s)
        if sender.sockets >= self._sockets_per_network:
            return self.refuse("network_sockets")
        if self.sockets >= self._sockets_max:
            return self.refuse("edge_sockets")
        sender.sockets += 1
        self.sockets += 1
        return None

    def closed(self, network: str) -> None:
        """Of one that was let in."""
        self.sockets -= 1
        self._senders[network].sockets -= 1

    def message(self, network: str, now_s: float) -> str | None:
        """One message, or one request over HTTP. None: go on. A network over its own limit uses up nothing of the others'."""
        if not self._sender(network, now_s).messages.take(now_s):
            return self.refuse("network_rate")
        if not self._all.take(now_s):
            return self.refuse("edge_rate")
        self.taken += 1
        return None

    def refuse(self, why: str) -> str:
        self.refused[why] += 1
        return why

    def exposition(self) -> str:
        name = "voxplane_edge_probes"
        return "".join(
            (
                f"{head(name + '_total')}{name}_total {self.taken}\n",
                head(f"{name}_refused_total"),
                *(f'{name}_refused_total{{why="{why}"}} {n}\n' for why, n in sorted(self.refused.items())),
                f"{head('voxplane_edge_probe_sockets')}voxplane_edge_probe_sockets {self.sockets}\n",
            )
        )

    def _sender(self, network: str, now_s: float) -> _Sender:
        sender = self._senders.get(network)
        if sender is None:
            while len(self._senders) >= self._networks_max:
                self._forget_one()
            bucket = _Bucket(self._per_network_s, self._per_network_s, now_s)
            sender = self._senders[network] = _Sender(bucket)
        self._senders.move_to_end(network)
        return sender

    def _forget_one(self) -> None:
        """There is always one without a socket: the table is larger than the number of sockets."""
        while True:
            network, sender = self._senders.popitem(last=False)
            if not sender.sockets:
                return
            self._senders[network] = sender
