"""The customer's side: a backend per region that keeps no state, callers that carry out their plan, a webhook endpoint and a
reader of the feed. None of them knows more than a real one would."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import msgspec

from app.webhooks.sender import Answer
from regions.wire import ids
from tests.simulation.clocks import Machine
from tests.simulation.loop import Life
from tests.simulation.network import CLEAN, End, Inbox, Refused
from tests.simulation.plan import CallPlan
from tests.simulation.sockets import CallerSocket, Connecting, address_of
from voxplane.caller import AsyncCaller
from voxplane.errors import ApiError, CallLost, CallRefused, Unavailable

if TYPE_CHECKING:
    from tests.simulation.world import World

ASK_WITHIN_S = 5.0
REQUEST_ROUNDS = 3
HOOK_WITHIN_S = 2.0
STAYS_S = 8.0
"""How long a caller waits to be told that its call is over."""
FRAME_BYTES = 160
MARK = b"VX:"


def spoken(utterance: str) -> bytes:
    """One frame of the caller's audio that says which utterance it is."""
    return (MARK + utterance.encode() + b";").ljust(FRAME_BYTES, b"\xff")


class Backend:
    """One region's. It answers what it hears: text, perhaps a tool, some audio."""

    def __init__(self, world: World, machine: Machine) -> None:
        self.world = world
        self.machine = machine
        self.life: Life
        self.start()

    def start(self) -> None:
        self.life = Life(self.world.loop, self.machine.name, self.machine)
        self.world.network.listen(f"{self.machine.name}.example.com", self.life, accept=self._accept)

    def _accept(self, end: End, hello: Any) -> None:
        end.receiver = Conversation(self, end)


class Conversation:
    """One socket of one call."""

    def __init__(self, backend: Backend, end: End) -> None:
        self._backend = backend
        self._end = end
        self._chance: random.Random = backend.world.chance
        self._call = ""
        self._results: dict[str, str] = {}

    def closed(self, code: int) -> None:
        return

    def message(self, message: str) -> None:
        said = msgspec.json.decode(message)
        match said["event"]:
            case "start":
                parameters = said["start"]["customParameters"]
                self._call = parameters["voxplane_call"]
                if parameters["voxplane_resumed"] == "true":
                    told = msgspec.json.decode(parameters["voxplane_conversation"])
                    self._backend.world.ledger.told(self._call, told["turns"])
            case "media":
                self._heard(said["media"]["payload"])
            case "voxplane" if said["type"] == "ack":
                self._acknowledged(said["data"]["id"], again=said["data"].get("again", False))
            case "stop":
                self._end.close(CLEAN)

    def _heard(self, payload: str) -> None:
        raw = msgspec.json.decode(b'"' + payload.encode() + b'"', type=bytes)
        if not raw.startswith(MARK):
            return
        utterance = raw[len(MARK) : raw.index(b";")].decode()
        self._text("transcript.final", {"role": "caller", "text": utterance})
        self._text("turn.ended", {"role": "caller", "text": utterance})
        draw = self._chance.random()
        if draw < 0.5:
            tool = f"t-{utterance}"
            called = {"id": tool, "key": tool, "name": "look_up", "arguments": {"for": utterance}}
            self._text("tool.called", called)
        loop = self._backend.world.loop
        loop.call_later(0.05 + self._chance.random() * 0.3, self._reply, utterance)

    def _reply(self, utterance: str) -> None:
        draw = self._chance.random()
        self._text("transcript.final", {"role": "agent", "text": f"about {utterance} I say this"})
        payload = msgspec.json.encode(b"\x5a" * FRAME_BYTES * 4).decode()
        self._send({"event": "media", "media": {"payload": payload[1:-1]}})
        self._send({"event": "mark", "mark": {"name": utterance}})
        if draw < 0.8:
            self._text("turn.ended", {"role": "agent"})
        if draw < 0.2:
            loop = self._backend.world.loop
            loop.call_later(0.1, self._send, {"event": "clear"})
        elif draw > 0.985:
            self._end.close(CLEAN)

    def _acknowledged(self, tool: str, *, again: bool) -> None:
        """As docs/reference/agent-twilio.md tells a backend: what may have run already is looked up before it is run."""
        ledger = self._backend.world.ledger
        if not (again and ledger.has_run(self._call, tool)):
            ledger.tool_ran(self._call, tool)
        self._text("tool.result", {"id": tool, "key": tool, "result": {"found": tool}})

    def _text(self, type_: str, data: dict[str, Any]) -> None:
        self._send({"event": "voxplane", "type": type_, "data": data})

    def _send(self, message: dict[str, Any]) -> None:
        self._end.send(msgspec.json.encode(message).decode())


class RestClient:
    """The client library's `AsyncClient`, as far as a caller needs it: asks one instance after the other."""

    def __init__(self, world: World, life: Life) -> None:
        self._world = world
        self._life = life

    async def new_ticket(self, call_id: str, old_ticket: str) -> dict[str, Any]:
        self._world.ledger.moment("asked")
        ticket: str = await self._ask(("ticket", call_id, old_ticket))
        return {"ticket": ticket}

    async def create(self, key: str, plan: CallPlan) -> dict[str, Any]:
        created: dict[str, Any] = await self._ask(("create", key, plan))
        return created

    async def end(self, call_id: str) -> None:
        await self._ask(("end", call_id))

    async def _ask(self, payload: Any) -> Any:
        names = list(self._world.apis)
        for attempt in range(REQUEST_ROUNDS * len(names)):
            try:
                async with asyncio.timeout(ASK_WITHIN_S):
                    return await self._world.network.request(
                        self._life, f"{names[attempt % len(names)]}/rest", payload
                    )
            except (OSError, TimeoutError, Refused):
                await asyncio.sleep(0.2)
        raise Unavailable(["no instance answered"])


class CallerNode:
    """One caller with its plan. `caller`: the library's, once it has a ticket."""

    def __init__(self, world: World, machine: Machine, plan: CallPlan) -> None:
        self.world = world
        self.machine = machine
        self.plan = plan
        self.life = Life(world.loop, machine.name, machine)
        self.caller: AsyncCaller | None = None
        self.call_id = ""
        self.done = False
        self.attached = False
        self.unserved_s: float | None = None
        self.life.spawn(self._run(), "caller")

    async def _run(self) -> None:
        try:
            await self._live()
        except (Unavailable, ApiError, CallLost, CallRefused) as error:
            self.world.ledger.say(self.machine.name, f"gives up: {type(error).__name__} {error}")
        finally:
            self.done = True

    async def _live(self) -> None:
        plan, client = self.plan, RestClient(self.world, self.life)
        await asyncio.sleep(plan.at_s)
        key = f"key-{plan.number}"
        twins = await asyncio.gather(*(client.create(key, plan) for _ in range(1 + plan.doubled)))
        created = twins[0]
        self.world.same_call(created, twins[-1])
        self.call_id = created["id"]
        self.world.ledger.say(self.machine.name, f"has {self.name} on {created['region']}")
        if not plan.attaches:
            return
        self.caller = AsyncCaller(
            created["ticket"],
            encoding="mulaw",
            sample_rate=8_000,
            client=client,
            connect=self._connect,  # type: ignore[arg-type]
        )
        async with self.caller as caller:
            self.attached = True
            self.world.ledger.moment("attached")
            for action in plan.actions:
                while not caller.over and self.world.loop.now < action.at_s:
                    await asyncio.sleep(min(1.0, max(0.001, action.at_s - self.world.loop.now)))
                if caller.over:
                    break
                await self._act(client, caller, action.kind, action.value)
            if not caller.over and plan.actions[-1].kind in ("hangup", "end"):
                ends_s = self.world.loop.now + STAYS_S
                while not caller.over and self.world.loop.now < ends_s:
                    await asyncio.sleep(0.25)

    async def _act(self, client: RestClient, caller: AsyncCaller, kind: str, value: str) -> None:
        self.world.ledger.say(self.machine.name, f"{kind} {value}")
        match kind:
            case "say":
                await caller.send(spoken(value))
            case "dtmf":
                await caller.dtmf(value)
            case "hangup":
                await caller.hangup()
            case "end":
                try:
                    await client.end(self.call_id)
                except (Unavailable, ApiError):
                    return

    @property
    def name(self) -> str:
        return (
            self.world.ledger.name_of(ids.decode(ids.CALL, self.call_id))
            if self.call_id
            else self.machine.name
        )

    def _connect(self, url: str, **options: Any) -> Connecting:
        async def open_() -> CallerSocket:
            end = await self.world.network.connect(self.life, address_of(url))
            return CallerSocket(end, self.world.ledger)

        return Connecting(open_, **options)


class Hooks:
    """The customer's webhook endpoint."""

    def __init__(self, world: World, machine: Machine) -> None:
        self.world = world
        self.down = False
        self.life = Life(world.loop, machine.name, machine)
        world.network.listen("hooks", self.life, answer=self._post)

    async def _post(self, body: bytes) -> int:
        if self.down:
            return 503
        event = msgspec.json.decode(body)
        self.world.ledger.hooked_event(event["call_id"], event["seq"], event["id"])
        return 204


class HookSender:
    """`app.webhooks.sender.Sender` of one instance."""

    def __init__(self, world: World, life: Life) -> None:
        self._world = world
        self._life = life

    async def post(self, url: str, body: bytes, headers: dict[str, str], **_: Any) -> Answer:
        try:
            async with asyncio.timeout(HOOK_WITHIN_S):
                status: int = await self._world.network.request(self._life, "hooks", body)
        except TimeoutError:
            return Answer(status=None, duration_ms=0, error="timeout", timed_out=True)
        except OSError as error:
            return Answer(status=None, duration_ms=0, error=type(error).__name__)
        return Answer(status=status, duration_ms=1)

    async def close(self) -> None:
        return


class Reader:
    """A consumer of the feed, which goes on from its cursor at another instance whenever a stream ends."""

    def __init__(self, world: World, machine: Machine) -> None:
        self.world = world
        self.cursor = ""
        self.heard_s = 0.0
        self.life = Life(world.loop, machine.name, machine)
        self.life.spawn(self._run(), "reader")

    async def _run(self) -> None:
        names = list(self.world.apis)
        turn = 0
        while True:
            turn += 1
            try:
                async with asyncio.timeout(2.0):
                    end = await self.world.network.connect(
                        self.life, f"{names[turn % len(names)]}/feed", self.cursor
                    )
                await self._read(end)
            except (OSError, TimeoutError, Refused):
                pass
            await asyncio.sleep(0.3)

    async def _read(self, end: End) -> None:
        inbox = end.receiver = Inbox(end)
        try:
            while True:
                async with asyncio.timeout(4.0):
                    message = await inbox.get()
                if message is None:
                    return
                self.cursor, event = message
                if event is not None:
                    self.world.ledger.read_event(*event)
        finally:
            end.abort()
