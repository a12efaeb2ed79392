"""What Patroni is told, here and over three regions; and what is said where something is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from app.local import ha_etcd, ha_python
from app.local.ha_config import (
    LOOP_WAIT_S,
    RETRY_TIMEOUT_S,
    TTL_S,
    Member,
    Secrets,
    cluster_config,
    patroni_config,
)
from app.local.process import Account, EngineError

TEMPLATE = Path(__file__).parents[2] / "deploy" / "patroni" / "patroni.yml"
PROMISE = {
    "synchronous_mode": "quorum",
    "synchronous_mode_strict": True,
    "synchronous_node_count": 1,
    "failsafe_mode": True,
}
SECRETS = Secrets(superuser="s", replication="r", rewind="w", rest="p", etcd="e")


def test_a_commit_waits_for_one_of_two_standbys_here_and_in_the_template() -> None:
    template = yaml.safe_load(TEMPLATE.read_text())["bootstrap"]["dcs"]
    for config in (cluster_config({}), template):
        assert {name: config[name] for name in PROMISE} == PROMISE
        assert config["postgresql"]["use_pg_rewind"] is True
        assert config["postgresql"]["parameters"]["wal_log_hints"] == "on"
        assert config["loop_wait"] + 2 * config["retry_timeout"] <= config["ttl"]
    assert LOOP_WAIT_S + 2 * RETRY_TIMEOUT_S <= TTL_S


def test_nothing_listens_beyond_loopback_and_nobody_gets_in_without_a_password() -> None:
    member = Member(name="pg-1", home=Path("/x"), port=1, rest_port=2)
    config = patroni_config(member, binaries=Path("/b"), etcd_ports=[3], secrets=SECRETS, parameters={})
    assert config["postgresql"]["listen"].startswith("127.0.0.1:")
    assert config["restapi"]["listen"].startswith("127.0.0.1:")
    assert config["restapi"]["authentication"]["password"] == SECRETS.rest
    assert all(rule.endswith("127.0.0.1/32 scram-sha-256") for rule in config["postgresql"]["pg_hba"])


def test_a_missing_etcd_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ha_etcd.shutil, "which", lambda *_, **__: None)
    with pytest.raises(EngineError, match="apt-get install etcd-server"):
        ha_etcd.find_etcd()


def test_a_missing_patroni_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ha_python, "PACKAGES", ("patroni", "not-there"))
    with pytest.raises(EngineError, match=r"voxplane-server\[ha\]"):
        ha_python.find_interpreter(Account())
