"""The network between the parts: one link per pair that can be cut, all in a process of their own, so that nothing which holds
the load up holds the network up.

Decides nothing: the nemesis says what is cut. ``python -m tests.chaos.network`` is the process, `Network` the hand on it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvloop

from app.local.wan import Link
from tests.chaos.child import Child, answer, child, orders


@dataclass(frozen=True, slots=True)
class Wire:
    """One link. `port`: where its users connect."""

    name: str
    port: int


@dataclass(slots=True)
class Network:
    """Names are ``who>whom``, such as ``us-east>api-0``."""

    process: Child
    wires: dict[str, Wire] = field(default_factory=dict)

    async def open(self, name: str, port: int) -> Wire:
        opened = await self.process.ask({"do": "open", "name": name, "port": port})
        self.wires[name] = Wire(name, opened["port"])
        return self.wires[name]

    async def cut(self, names: list[str], way: str) -> None:
        await self.process.ask({"do": "cut", "names": names, "way": way})

    async def heal(self, names: list[str]) -> None:
        await self.process.ask({"do": "heal", "names": names})

    async def reset(self, names: list[str]) -> None:
        await self.process.ask({"do": "reset", "names": names})

    async def delay(self, names: list[str], one_way_ms: float) -> None:
        await self.process.ask({"do": "delay", "names": names, "ms": one_way_ms})


@asynccontextmanager
async def running_network() -> AsyncIterator[Network]:
    async with child("tests.chaos.network") as process:
        yield Network(process)


async def serve() -> None:
    """Until its orders end."""
    given = await orders()
    links: dict[str, Link] = {}
    async with AsyncExitStack() as stack:
        while line := await given.readline():
            order = json.loads(line)
            told: dict[str, Any] = {}
            if order["do"] == "open":
                link = await stack.enter_async_context(Link("127.0.0.1", order["port"], 0.0))
                links[order["name"]] = link
                told = {"port": link.port}
            for link in (links[name] for name in order.get("names", ())):
                match order["do"]:
                    case "cut":
                        link.cut(order["way"])
                    case "heal":
                        link.heal()
                    case "reset":
                        link.reset()
                    case "delay":
                        link.one_way_ms = order["ms"]
            answer(told)


if __name__ == "__main__":
    uvloop.run(serve())
    sys.exit(0)
