"""An event loop without a clock and without I/O: time is a number, and whose turn it is next is drawn from the seed.

Decides in which order callbacks run. Every callback belongs to a *life*, one run of one process: a life that has crashed
never runs again, wherever it stood; one that is stopped is held back until it continues. Within a life callbacks run first
in, first out, as asyncio promises; which of several lives comes next is drawn. Leaves to `clocks` what a life's clock shows.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

LIFE: contextvars.ContextVar[Life] = contextvars.ContextVar("life")
RUNNING, STOPPED, DEAD = "running", "stopped", "dead"


class Life:
    """One run of one process on `machine`, from its start to its end.

    `fuse`: how many more callbacks it will run before it dies; None: it has no fuse.
    """

    __slots__ = (
        "born_s", "context", "fuse", "held", "loop", "machine", "name", "on_death", "ready", "slept_s", "state", "stopped_at_s",
    )  # fmt: skip

    def __init__(self, loop: SimLoop, name: str, machine: Any) -> None:
        self.loop = loop
        self.name = name
        self.machine = machine
        self.state = RUNNING
        self.ready: deque[Handle] = deque()
        self.held: list[Handle] = []
        self.slept_s = 0.0
        self.stopped_at_s = 0.0
        self.born_s = loop.now
        self.fuse: int | None = None
        self.on_death: list[Callable[[], None]] = []
        self.context = contextvars.copy_context()
        self.context.run(LIFE.set, self)

    @property
    def alive(self) -> bool:
        return self.state is not DEAD

    def spawn(self, work: Coroutine[Any, Any, Any], name: str = "") -> asyncio.Task[Any]:
        """A task of this life, whoever asks for it."""
        return self.context.copy().run(self.loop.create_task, work, name=name)

    def call(self, callback: Callable[..., Any], *args: Any) -> None:
        """Soon, as this life."""
        self.loop.call_soon(callback, *args, context=self.context.copy())

    def kill(self) -> None:
        """Nothing of it runs any more."""
        if self.state is not DEAD:
            self.state = DEAD
            self.ready.clear()
            self.held.clear()
            for told in self.on_death:
                told()

    def stop(self) -> None:
        if self.state is RUNNING:
            self.state = STOPPED
            self.stopped_at_s = self.loop.now

    def go_on(self, *, slept: bool) -> None:
        """`slept`: the whole machine was suspended, so its timers stood still."""
        if self.state is not STOPPED:
            return
        self.state = RUNNING
        if slept:
            self.slept_s += self.loop.now - self.stopped_at_s
        held, self.held = self.held, []
        for handle in held:
            if slept and not handle.external:
                self.loop.put_back(handle)
            else:
                self.ready.append(handle)
        if self.ready:
            self.loop.runnable(self)


class Handle:
    """A callback that waits. `external`: it comes from the network, so a sleeping machine's clock does not delay it."""

    __slots__ = ("args", "callback", "cancelled_", "context", "external", "life", "slept_s", "when_s")

    def __init__(
        self, callback: Callable[..., Any], args: tuple[Any, ...], context: contextvars.Context, life: Life
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.life = life
        self.when_s = 0.0
        self.slept_s = life.slept_s
        self.external = False
        self.cancelled_ = False

    def cancel(self) -> None:
        self.cancelled_ = True

    def cancelled(self) -> bool:
        return self.cancelled_

    def when(self) -> float:
        return self.when_s


class SimTask(asyncio.Task):  # type: ignore[type-arg]
    """Hashed by its number, so that sets of tasks are walked in the same order in every process."""

    def __init__(self, coro: Any, *, number: int, life: Life, **more: Any) -> None:
        self._number = number
        self.life = life
        super().__init__(coro, **more)

    def __hash__(self) -> int:
        return self._number


class SimLoop(asyncio.AbstractEventLoop):
    """`halt` ends the run after the present callback; `steps` counts callbacks."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.skipped_s = 0.0
        self.steps = 0
        self.halted = False
        self.chance = random.Random(seed)
        self.tasks: list[SimTask] = []
        self.unhandled: list[dict[str, Any]] = []
        self.watch: Callable[[Life], None] | None = None
        self._heap: list[tuple[float, int, Handle]] = []
        self._runnable: list[Life] = []
        self._order = 0
        self.world = Life(self, "world", None)
        self.current = self.world

    # ------------------------------------------------------------------------------------- what asyncio asks for

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        context = context if context is not None else contextvars.copy_context()
        life: Life = context.get(LIFE, self.world)
        handle = Handle(callback, args, context, life)
        if life.state is RUNNING:
            if not life.ready:
                self._runnable.append(life)
            life.ready.append(handle)
        elif life.state is STOPPED:
            life.ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Handle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Handle:
        context = context if context is not None else contextvars.copy_context()
        life: Life = context.get(LIFE, self.world)
        handle = Handle(callback, args, context, life)
        if life.state is not DEAD:
            machine = life.machine
            if machine is not None and machine.rate != 1.0:
                when = self.now + (when - self.now) / machine.rate
            self._push(handle, when)
        return handle

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> SimTask:  # type: ignore[override]
        life = LIFE.get(self.world)
        number = len(self.tasks) + 1
        task = SimTask(coro, number=number, life=life, loop=self, name=name or "task", context=context)
        self.tasks.append(task)
        return task

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.unhandled.append(context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.unhandled.append(context)

    # ------------------------------------------------------------------------------------------- the simulator's

    def deliver_at(self, when_s: float, life: Life, callback: Callable[..., Any], *args: Any) -> Handle:
        """Something that comes to `life` from outside. It is dropped where the life is over by then."""
        handle = Handle(callback, args, life.context.copy(), life)
        handle.external = True
        if life.state is not DEAD:
            self._push(handle, max(when_s, self.now))
        return handle

    def world_at(self, when_s: float, callback: Callable[..., Any], *args: Any) -> Handle:
        """As nobody: faults, links, the cluster's own clockwork."""
        return self.deliver_at(when_s, self.world, callback, *args)

    def put_back(self, handle: Handle) -> None:
        """A timer of a life that has slept: it has as long to wait as it had before."""
        handle.when_s += handle.life.slept_s - handle.slept_s
        handle.slept_s = handle.life.slept_s
        self._push(handle, handle.when_s)

    def runnable(self, life: Life) -> None:
        if life not in self._runnable:
            self._runnable.append(life)

    def run(self, until_s: float) -> None:
        """Until nothing is due before `until_s`, or `halted`. A life stands in `_runnable` while it has something to do."""
        events._set_running_loop(self)
        runnable, draw = self._runnable, self.chance.random
        try:
            while not self.halted:
                n = len(runnable)
                if n == 0:
                    if not self._advance(until_s):
                        break
                    continue
                i = 0 if n == 1 else int(draw() * n)
                life = runnable[i]
                ready = life.ready
                if not ready or life.state is not RUNNING:
                    runnable[i] = runnable[-1]
                    runnable.pop()
                    continue
                handle = ready.popleft()
                if not ready:
                    runnable[i] = runnable[-1]
                    runnable.pop()
                if not handle.cancelled_:
                    self._step(life, handle)
        finally:
            events._set_running_loop(None)
        if not self.halted:
            self.now = max(self.now, until_s)

    def skip(self, seconds: float) -> None:
        """The whole world sleeps: wall clocks and leases count it, timers do not."""
        self.now += seconds
        self.skipped_s += seconds
        self._heap = [(when + seconds, order, handle) for when, order, handle in self._heap]
        for _, _, handle in self._heap:
            handle.when_s += seconds

    def dispose(self) -> None:
        """Closes what still waits, so that nothing of this run wakes up in another one."""
        events._set_running_loop(self)
        try:
            self._heap.clear()
            for task in self.tasks:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                if not task.done():
                    _close(task.get_coro())
            self.tasks.clear()
            self._runnable.clear()
        finally:
            events._set_running_loop(None)

    def _push(self, handle: Handle, when_s: float) -> None:
        handle.when_s = when_s
        self._order += 1
        heapq.heappush(self._heap, (when_s, self._order, handle))

    def _advance(self, until_s: float) -> bool:
        """On to the next timer; False where there is none in time."""
        heap = self._heap
        while heap:
            when_s, _, handle = heap[0]
            if when_s > until_s:
                return False
            heapq.heappop(heap)
            life = handle.life
            if handle.cancelled_ or life.state is DEAD:
                continue
            if life.state is STOPPED:
                life.held.append(handle)
                continue
            if handle.slept_s != life.slept_s and not handle.external:
                self.put_back(handle)
                continue
            if when_s > self.now:
                self.now = when_s
            if not life.ready:
                self._runnable.append(life)
            life.ready.append(handle)
            if not heap or heap[0][0] > when_s:
                return True
        return bool(self._runnable)

    def _step(self, life: Life, handle: Handle) -> None:
        self.steps += 1
        self.current = life
        try:
            handle.context.run(handle.callback, *handle.args)
        except Exception as error:  # noqa: BLE001  whoever runs the seed wants to know
            self.unhandled.append({"exception": error, "life": life.name})
        self.current = self.world
        if life.fuse is not None:
            life.fuse -= 1
            if life.fuse <= 0:
                life.kill()
        if self.watch is not None:
            self.watch(life)


def _close(coroutine: Any) -> None:
    try:
        coroutine.close()
    except BaseException:  # noqa: BLE001  a `finally` that waits cannot, any more
        return
