"""An AI backend that needs no network: order status by voice, on Voxplane's agent kit.

The parts are in `parts.py`; each line of the pipeline can be another one. The kit speaks with the edge, in whichever dialect the
call has, and hands on what Voxplane has kept of it when the call comes back after a failover. Run it, and give its address to a
call as `agent.url`:

    python backend.py --port 9000        →  ws://127.0.0.1:9000/
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys

from dialogue import GREETING
from parts import LOOK_UP, EspeakVoice, GrammarEar, OrderDialogue

from voxplane.agent import AgentServer, Handle, PartFailed, Pipeline

CALLS_MAX = 20


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def pipeline(name: str) -> Pipeline:
    def begun(call: Handle) -> None:
        start = call.start
        say(backend=name, call=start.call, resumed=start.resumed, turns=len(start.turns))

    def failed(error: PartFailed) -> None:
        say(backend=name, failed=str(error))

    return Pipeline(
        stt=GrammarEar(),
        llm=OrderDialogue(),
        tts=EspeakVoice(),
        tools=[LOOK_UP],
        greeting=GREETING,
        on_start=begun,
        on_error=failed,
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description="An offline AI backend: order status by voice.")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--name", default="backend")
    given = parser.parse_args()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    made = pipeline(given.name)
    async with AgentServer(made, host=given.host, port=given.port, calls_max=CALLS_MAX) as server:
        say(backend=given.name, listening=server.url)
        await stop.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
