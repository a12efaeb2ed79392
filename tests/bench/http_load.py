"""A process of its own that creates calls as fast as the API answers: ``python -m tests.bench.http_load PORTS KEY CLIENTS SECONDS``.

The clients share the instances on PORTS, which are separated by commas.

Plain sockets, no event loop, and no parsing beyond the status and the length, because it shares the machine with what it
measures, and the other side's load comes from a program in C.
Prints one JSON object: creates, seconds, and the latencies' quantiles in milliseconds.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
import uuid

from tests.bench.support import content_length, quantile

BODY = json.dumps(
    {
        "agent": {"url": "ws://127.0.0.1:9/agent"},
        "latencies": [
            {"region": "us-east", "rtt_ms": 12},
            {"region": "eu-west", "rtt_ms": 80},
            {"region": "ap-south", "rtt_ms": 190},
        ],
        "metadata": {"customer": "c-1042", "campaign": "spring"},
    }
).encode()
WAIT_S = 10.0
READ_BYTES = 65_536


class Client:
    """Creates one call after the other on a connection of its own."""

    __slots__ = ("_began", "_came", "_head", "_made", "_name", "_until", "socket")

    def __init__(self, port: int, key: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = (
            f"POST /v1/calls HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\nIdempotency-Key: "
        ).encode()
        self._name, self._made = uuid.uuid4().hex, 0

    def create(self) -> None:
        self._came, self._until, self._began = b"", 0, time.perf_counter()
        self._made += 1
        # a request is far smaller than what the socket takes at once
        self.socket.sendall(b"%b%b-%d\r\n\r\n%b" % (self._head, self._name.encode(), self._made, BODY))

    def answered(self) -> float | None:
        """Reads what has come. How long the create took, in milliseconds; None while its answer is not whole."""
        came = self._came = self._came + self.socket.recv(READ_BYTES)
        if not came:
            raise SystemExit("the connection was lost")
        if not self._until and (end := came.find(b"\r\n\r\n")) >= 0:
            self._until = end + 4 + content_length(came)
        if not self._until or len(came) < self._until:
            return None
        if not came.startswith(b"HTTP/1.1 201"):
            raise SystemExit(f"the API refused: {came.decode()}")
        return (time.perf_counter() - self._began) * 1000


def main(ports: list[int], key: str, clients: int, seconds: float) -> None:
    took_ms: list[float] = []
    poll = select.epoll()
    by_number: dict[int, Client] = {}
    for i in range(clients):
        client = Client(ports[i % len(ports)], key)
        by_number[client.socket.fileno()] = client
        poll.register(client.socket.fileno(), select.EPOLLIN)
    began = time.perf_counter()
    for client in by_number.values():
        client.create()
    under_way = clients
    while under_way:
        ready = poll.poll(WAIT_S)
        if not ready:
            raise SystemExit(f"no answer within {WAIT_S} s")
        for number, _ in ready:
            client = by_number[number]
            took = client.answered()
            if took is None:
                continue
            took_ms.append(took)
            if time.perf_counter() - began < seconds:
                client.create()
            else:
                under_way -= 1
    elapsed = time.perf_counter() - began
    print(
        json.dumps(
            {
                "creates": len(took_ms),
                "per_s": len(took_ms) / elapsed,
                "p50_ms": quantile(took_ms, 0.5),
                "p99_ms": quantile(took_ms, 0.99),
            }
        )
    )


if __name__ == "__main__":
    main([int(p) for p in sys.argv[1].split(",")], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
