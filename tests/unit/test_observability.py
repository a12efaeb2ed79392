"""Dashboards, alerts and runbooks speak of what exists: every metric, every label, every runbook, every command."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from app import metrics
from app.cli.main import app as cli
from regions.wire.edge_metrics import EDGE_METRICS

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
SCRAPE = ROOT / "deploy" / "prometheus" / "prometheus.yml"
RUNBOOKS = ROOT / "docs" / "runbooks"
RULES: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
BOARDS = sorted((ROOT / "deploy" / "grafana").glob("*.json"))
OF_PROMETHEUS = {"up", "process_cpu_seconds_total"}
OF_THE_SCRAPE = {"job", "instance", "le", "region", "edge"}
SAMPLE = re.compile(r"\b((?:voxplane|process)_[a-z0-9_]+|up)\b(\{[^}]*\})?")


def queries() -> Iterator[tuple[str, str]]:
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for board in BOARDS:
        for panel in json.loads(board.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{board.name}: {panel['title']}", target["expr"]
    for page in RUNBOOKS.glob("*.md"):
        for quoted in re.findall(r"`([^`]*voxplane_[^`]*)`", page.read_text()):
            yield page.name, quoted


def labels_of(sample: str) -> set[str]:
    known = metrics.control_metrics() | EDGE_METRICS
    name = sample if sample in known else re.sub(r"_(bucket|sum|count)$", "", sample)
    return set(known[name].labels) if name in known else set()


@pytest.mark.parametrize(("where", "query"), [pytest.param(*q, id=f"{i}") for i, q in enumerate(queries())])
def test_a_query_asks_for_what_is_exposed(where: str, query: str) -> None:
    exist = (
        metrics.sample_names() | {n for n in metrics.control_metrics()} | set(EDGE_METRICS) | OF_PROMETHEUS
    )
    asked = SAMPLE.findall(query)
    assert asked, where
    for sample, selector in asked:
        assert sample in exist, f"{where}: {sample}"
        named = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
        assert named <= labels_of(sample) | OF_THE_SCRAPE, f"{where}: {named}"
    by = {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", query) for label in group.split(",")}
    assert by <= set().union(*(labels_of(s) for s, _ in asked)) | OF_THE_SCRAPE, f"{where}: {by}"


def test_every_alert_has_its_runbook_and_every_runbook_its_alert() -> None:
    for rule in RULES:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        page = ROOT / rule["annotations"]["runbook"]
        text = page.read_text()
        assert text.startswith(f"# {rule['alert']}\n"), page
        assert [h for h in re.findall(r"^## (.*)$", text, re.M)] == [
            "What it means",
            "What to look at",
            "What to do",
        ]
        assert (
            f"[{rule['alert']}]({page.name}) | {rule['labels']['severity']} |"
            in (RUNBOOKS / "README.md").read_text()
        )
    pages = {p.name for p in RUNBOOKS.glob("*.md")} - {"README.md"}
    assert pages == {Path(r["annotations"]["runbook"]).name for r in RULES}
    assert len({r["alert"] for r in RULES}) == len(RULES)


def test_what_a_runbook_says_to_type_is_a_command() -> None:
    root: Any = typer.main.get_command(cli)
    for page in RUNBOOKS.glob("*.md"):
        for typed in re.findall(r"`voxplane ([^`]+)`", page.read_text()):
            command, words = root, typed.split()
            while words and words[0] in getattr(command, "commands", ()):
                command = command.commands[words.pop(0)]
            bare = [w for w in words if not w.startswith("-")]
            assert words or command is not root, f"{page.name}: voxplane {typed}"
            assert not (bare and hasattr(command, "commands")), f"{page.name}: voxplane {typed}"
            options = {o for p in command.params for o in p.opts}
            assert {w for w in words if w.startswith("-")} <= options, f"{page.name}: voxplane {typed}"


def test_a_dashboard_is_one_that_can_be_imported() -> None:
    assert [b.stem for b in BOARDS] == ["calls", "fleet", "log", "webhooks"]
    uids = set()
    for board in BOARDS:
        found = json.loads(board.read_text())
        uids.add(found["uid"])
        assert len({p["id"] for p in found["panels"]}) == len(found["panels"])
        places = [p["gridPos"] for p in found["panels"]]
        assert all(p["x"] + p["w"] <= 24 for p in places)
        assert all(p["datasource"]["uid"] == "${datasource}" for p in found["panels"])
    assert len(uids) == len(BOARDS)


def test_prometheus_takes_the_files() -> None:
    scrape = yaml.safe_load(SCRAPE.read_text())
    assert {c["job_name"] for c in scrape["scrape_configs"]} == {"voxplane-control", "voxplane-edge"}
    jobs = set(re.findall(r'job="([^"]*)"', ALERTS.read_text()))
    assert jobs <= {c["job_name"] for c in scrape["scrape_configs"]}
    promtool = shutil.which("promtool")
    for check in (("rules", ALERTS), ("config", SCRAPE)) if promtool is not None else ():
        command = [str(promtool), "check", *map(str, check)]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout + found.stderr
