"""The compose file names what exists, and what it runs before the edges gives each of them a token."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import yaml

from tests.support.api import Api

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "compose"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
READ_IN = (ROOT / "app", ROOT / "regions", FOLDER)


@pytest.fixture(scope="module")
def enrol() -> ModuleType:
    spec = importlib.util.spec_from_file_location("enrol", FOLDER / "enrol.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_name_in_the_compose_file_is_of_something() -> None:
    services, volumes = COMPOSE["services"], set(COMPOSE["volumes"])
    settings = {
        name
        for folder in READ_IN
        for path in folder.rglob("*.py")
        for name in re.findall(r"\b(?:VOXPLANE|OTEL|DATABASE|REDIS)_[A-Z_]+", path.read_text())
    }
    stages = set(re.findall(r"^FROM \S+ AS (\w+)", (ROOT / "deploy" / "Containerfile").read_text(), re.M))
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= set(services), name
        assert {
            v for v in service.get("environment", {}) if v.split("_")[0] in ("VOXPLANE", "OTEL")
        } <= settings, name
        assert service.get("build", {}).get("target", "control") in stages, name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (FOLDER / source).exists() if source.startswith(".") else source in volumes, (
                f"{name}: {volume}"
            )
    edges = [s["environment"] for n, s in services.items() if n.startswith("edge-")]
    assert (
        len({e["VOXPLANE_REGION"] for e in edges})
        == len({e["VOXPLANE_PUBLIC_MEDIA_URL"] for e in edges})
        == 3
    )
    for needed in ("POSTGRES_PASSWORD", "VALKEY_PASSWORD", "VOXPLANE_OPERATOR_KEY"):
        used = re.findall(rf"\$\{{{needed}(.*?)\}}", (FOLDER / "compose.yaml").read_text())
        assert used and set(used) == {":?"}, "no secret has a default"


def test_what_prometheus_is_to_ask_are_services() -> None:
    for job in yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]:
        for target in (t for of in job["static_configs"] for t in of["targets"]):
            assert target.split(":")[0] in COMPOSE["services"], target


async def test_each_region_gets_a_token_and_is_made_once(api: Api, enrol: ModuleType, tmp_path: Path) -> None:
    key = api.operator.headers["authorization"].removeprefix("Bearer ")
    for _ in range(2):
        await asyncio.to_thread(enrol.lay, api.url, key, enrol.REGIONS, tmp_path)
        tokens = {p.name: p.read_text() for p in tmp_path.iterdir()}
        assert set(tokens) == {"us-east", "eu-west", "ap-south"} and len(set(tokens.values())) == 3
    known = (await api.operator.get("/admin/v1/regions")).json()["data"]
    assert {r["id"]: r["jurisdiction"] for r in known}.items() >= {
        "us-east": "us",
        "eu-west": "eu",
        "ap-south": "in",
    }.items()
    with pytest.raises(httpx.HTTPStatusError):
        await asyncio.to_thread(enrol.lay, api.url, "vx_op_" + "0" * 48, enrol.REGIONS, tmp_path)


def test_an_edge_is_started_with_the_token_of_its_region(tmp_path: Path) -> None:
    (tmp_path / "python").write_text('#!/bin/sh\nprintf "%s %s" "$VOXPLANE_EDGE_TOKEN" "$*"\n')
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "us-east").write_text("a.token")
    env = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "VOXPLANE_REGION": "us-east",
        "VOXPLANE_ENROLMENTS": str(tmp_path),
    }

    def started(**more: str) -> str:
        return subprocess.run(
            ["sh", str(FOLDER / "edge.sh")], env=env | more, capture_output=True, text=True, check=True
        ).stdout

    assert started() == "a.token -m regions.edge"
    assert started(VOXPLANE_EDGE_TOKEN="given") == "given -m regions.edge"
    assert started(VOXPLANE_REGION="eu-west") == " -m regions.edge"
