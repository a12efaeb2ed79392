"""A process of its own that receives webhooks: ``python -m tests.bench.hook_receiver``.

Says ``{"url": …, "hangs": …}``: the first answers 204 at once, the second accepts and never answers. Of each webhook the
first notes how long ago its event happened, by the event's own time. A line ``{}`` asks for what came since the last: count,
seconds between the first and the last, order statistics.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from datetime import datetime

import uvloop

from tests.bench.support import content_length, quantile, say, stdin

STAMP = re.compile(rb'"timestamp":"([^"]+)"')


@dataclass(slots=True)
class Got:
    late_ms: list[float] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)

    def report(self) -> dict[str, float]:
        late_ms, at_s = self.late_ms, self.at_s
        self.late_ms, self.at_s = [], []
        if not late_ms:
            return {"count": 0}
        return {
            "count": len(late_ms),
            "seconds": at_s[-1] - at_s[0],
            "p50_ms": quantile(late_ms, 0.5),
            "p99_ms": quantile(late_ms, 0.99),
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(content_length(head))
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                stamp = STAMP.search(body)
                if stamp is not None:
                    now_s = time.time()
                    happened = datetime.fromisoformat(stamp.group(1).decode())
                    self.late_ms.append((now_s - happened.timestamp()) * 1000)
                    self.at_s.append(now_s)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await reader.read()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def main() -> None:
    got = Got()
    commands = await stdin()
    answers = await asyncio.start_server(got.serve, "127.0.0.1", 0, backlog=1024)
    hangs = await asyncio.start_server(hang, "127.0.0.1", 0, backlog=1024)
    ports = [s.sockets[0].getsockname()[1] for s in (answers, hangs)]
    say({"url": f"http://127.0.0.1:{ports[0]}", "hangs": f"http://127.0.0.1:{ports[1]}"})
    while line := await commands.readline():
        json.loads(line)
        say(got.report())


if __name__ == "__main__":
    uvloop.run(main())
