"""Serves an instance on loopback, lets Schemathesis loose on every operation of the document, and counts what came of it.

``python -m tests.fuzz [--ci] [--examples N] [--seconds S] [--seed N] [options of Schemathesis]``.
Writes build/fuzz.json: the statuses of every operation.
Nothing leaves the machine: names are not looked up, and webhooks are not delivered.

Ends with 0; with 1 where a check of Schemathesis fails, an operation was not reached or never answered well, or the instance left a
request without an answer; with 75 where nothing is known of it: Schemathesis itself hung, with another seed again, or was too slow.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import structlog
import uvloop

from app.telemetry import registry
from tests.conftest import make_settings
from tests.fuzz.client import STUCK, Ended, run
from tests.fuzz.environment import Missing, schemathesis
from tests.fuzz.scenes import WORLDS, configuration, given
from tests.fuzz.tally import Fault, bad
from tests.fuzz.world import World
from tests.support.api import Api, serving
from tests.support.engines import Engines, running_engines

ROOT = Path(__file__).parents[2]
WRITTEN = ROOT / "build" / "fuzz.json"
HOOKS = Path(__file__).parent / "hooks.py"
OPERATIONS = "voxplane_http_requests_total"
CI_WITHIN_S = 300.0
ENDS_WITHIN_S = 900.0
"""Over once through, whatever the machine."""
SILENCE_S = 20
"""So long an answer may pause."""
REQUEST_S = 40.0
"""So long a request may take in all."""
ANSWERS_S = 5.0
TRIES = 2
ANOTHER = 1_000
"""Added to a seed whose client hung."""


@dataclass(frozen=True, slots=True)
class Run:
    """`within_s`: the hard bound of one try."""

    examples: int
    seconds: int
    seed: int
    ci: bool
    more: tuple[str, ...] = ()
    """For Schemathesis alone."""

    @property
    def within_s(self) -> float:
        return CI_WITHIN_S if self.ci else ENDS_WITHIN_S + self.seconds


async def fuzz(engines: Engines, wanted: Run) -> int:
    """The exit code."""
    for attempt in range(TRIES):
        ended, report = await _once(engines, wanted, wanted.seed + attempt * ANOTHER)
        if ended.hung is Fault.NOBODY:
            break
        if ended.hung is not Fault.CLIENT:
            return 1 if ended.hung or ended.code or bad(report) else 0
    return STUCK


async def _once(engines: Engines, wanted: Run, seed: int) -> tuple[Ended, dict[str, Any]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with engines.database() as url:
            settings = make_settings(url, engines.redis_urls, folder, deliveries=False)
            async with serving(settings) as api:
                began = time.monotonic()
                world = await World.of(api)
                await world.streams()
                document = (await api.operator.get("/openapi.json")).json()
                ended = await _let_loose(world, document, folder, wanted, seed)
                if ended.hung is None:
                    await (
                        world.register()
                    )  # and no sooner: an edge that is never heard stands in a drill's way
                report = ended.tally.report(document, _well() & set(WORLDS))
                report |= {"seed": seed, "seconds": round(time.monotonic() - began, 1), "hung": ended.hung}
                WRITTEN.parent.mkdir(exist_ok=True)
                WRITTEN.write_text(
                    json.dumps(report | {"by_operation": ended.tally.by_operation()}, indent=2)
                )
                print(json.dumps(report, indent=2))
                return ended, report


async def _let_loose(world: World, document: dict[str, Any], folder: Path, wanted: Run, seed: int) -> Ended:
    config, told, journal = folder / "schemathesis.toml", folder / "given.json", folder / "journal"
    config.write_text(configuration(world, wanted.examples, SILENCE_S, no_shrink=wanted.ci))
    told.write_text(json.dumps(given(world, document, str(journal), REQUEST_S)))
    command = [
        str(schemathesis()), "--config-file", str(config), "run", f"{world.api.url}/openapi.json",
        "--seed", str(seed), "--no-color", *(["--max-time", str(wanted.seconds)] if wanted.seconds else []), *wanted.more,
    ]  # fmt: skip
    environment = {"SCHEMATHESIS_HOOKS": str(HOOKS), "VOXPLANE_FUZZ_GIVEN": str(told)}
    return await run(command, environment, folder, journal, wanted.within_s, lambda: _answers(world.api))


async def _answers(api: Api) -> bool:
    try:
        async with await api.client() as client:
            return (await client.get("/healthz", timeout=ANSWERS_S)).is_success
    except httpx.HTTPError:
        return False


def _well() -> set[str]:
    """Operations that the instance has answered with 2xx, to whomever."""
    return {
        sample.labels["operation"]
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == OPERATIONS and sample.value and sample.labels["status"].startswith("2")
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "--ci", action="store_true", help="once through within three minutes, shrinking nothing"
    )
    parser.add_argument("--examples", type=int, default=10, help="generated for each operation and way")
    parser.add_argument("--seconds", type=int, default=0, help="generate anew until so long has passed")
    parser.add_argument("--seed", type=int, default=1)
    asked, more = parser.parse_known_args()
    wanted = Run(asked.examples, asked.seconds, asked.seed, asked.ci, tuple(more))
    structlog.configure(processors=[_loud, structlog.processors.JSONRenderer()])
    try:
        schemathesis()
        with running_engines() as engines:
            return uvloop.run(fuzz(engines, wanted))
    except Missing as missing:
        print(missing, file=sys.stderr)
        return 1


def _loud(_: Any, method: str, event: Any) -> Any:
    """Only what went wrong in the instance."""
    if method not in ("error", "critical"):
        raise structlog.DropEvent
    return event


if __name__ == "__main__":
    sys.exit(main())
