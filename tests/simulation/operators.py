"""The fleet's operators, who know no more than the API tells them: commands to edges and regions, moves of calls, and their end.

Decides whom a command goes to and how often it is tried. What was commanded is taken back in the end, whatever became of it, so
that the world is left in peace. Contradictory commands go to two instances at once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from regions.wire import ids
from tests.simulation import fixtures
from tests.simulation.clocks import Machine
from tests.simulation.loop import Life
from tests.simulation.network import Refused
from tests.simulation.plan import Fault
from voxplane.errors import ApiError

if TYPE_CHECKING:
    from tests.simulation.world import World

ASK_WITHIN_S = 6.0
TRIES = 6
AGAINST = ("uncordon", "evacuate", "cordon", "drain")
"""What a contradictory command may be."""


class Operator:
    """`busy`: commands that are not answered yet, and those that are to be taken back. `answered`: all that were, so far."""

    def __init__(self, world: World, machine: Machine) -> None:
        self.world = world
        self.machine = machine
        self.busy = self.answered = 0
        self.life = Life(world.loop, machine.name, machine)

    def carry_out(self, fault: Fault) -> None:
        self.busy += 1
        self.life.spawn(self._carry_out(fault), "command")

    async def _carry_out(self, fault: Fault) -> None:
        verb = fault.kind.removeprefix("ops.")
        try:
            if verb == "move":
                await self._move(fault)
                return
            first = verb if verb != "contradict" else "drain"
            commands = [self._command(first, fault, 0)]
            if verb == "contradict":
                commands.append(self._command(AGAINST[fault.steps % len(AGAINST)], fault, 1))
            await asyncio.gather(*commands)
            await asyncio.sleep(fault.for_s)
            while not await self._command("uncordon", fault, 0):
                await asyncio.sleep(0.5)
        finally:
            self.busy -= 1
            self.world.over(fault)

    async def _move(self, fault: Fault) -> None:
        callers = [c for c in self.world.callers.values() if c.call_id]
        if callers:
            call = callers[fault.steps % len(callers)].call_id
            await self._ask(("move", call, int(fault.amount)), 0, 1)

    async def _command(self, verb: str, fault: Fault, instance: int) -> bool:
        """Whether it was carried out, or refused for good."""
        whole = fault.other == "region"
        target = fault.target if whole else ids.encode(ids.EDGE, fixtures.EDGES[fault.target])
        kind = "region" if whole else "edge"
        return await self._ask(("operate", verb, kind, target, fault.amount), instance, TRIES)

    async def _ask(self, payload: Any, instance: int, tries: int) -> bool:
        names = list(self.world.apis)
        for i in range(instance, instance + tries):
            try:
                async with asyncio.timeout(ASK_WITHIN_S):
                    await self.world.network.request(self.life, f"{names[i % len(names)]}/rest", payload)
                self.answered += 1
                self.world.ledger.say(self.machine.name, f"has {' '.join(map(str, payload))}")
                return True
            except ApiError as error:
                self.world.ledger.say(
                    self.machine.name, f"is refused {' '.join(map(str, payload))}: {error.code}"
                )
                return error.status != 404
            except (OSError, TimeoutError, Refused):
                await asyncio.sleep(0.3)
        return False
