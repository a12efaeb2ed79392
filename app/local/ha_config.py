"""What Patroni is told. Decides how a cluster of three behaves: when a commit counts, who may lead, how soon it is noticed.

- A commit is acknowledged once one of the two standbys has flushed it (`ANY 1`), whichever is quicker; with both away it
  waits. Without *strict* Patroni would let the primary acknowledge alone then.
- A standby is promoted only where a quorum shows that nothing acknowledged is missing from it.
- A primary whose server dies is not waited for (`primary_start_timeout` 0). One whose Patroni dies with it is noticed when
  its lease in etcd runs out: 20 s, Patroni's least. `loop_wait` 1 s is the pace of everything else.
- A killed primary has written what the others have not; `pg_rewind` takes that back (checksums or wal_log_hints), so
  that it rejoins without a copy.
- With etcd away the primary goes on while it reaches every member by itself (`failsafe_mode`).

deploy/patroni/patroni.yml says the same for three regions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCOPE = "voxplane"
TTL_S, LOOP_WAIT_S, RETRY_TIMEOUT_S = 20, 1, 5
LOG_BYTES_MAX, LOG_FILES = 5_000_000, 2
USER, REPLICATOR, REWINDER, REST_USER = "voxplane", "replicator", "rewinder", "patroni"
LOCAL = "127.0.0.1/32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    superuser: str
    replication: str
    rewind: str
    rest: str
    etcd: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """`home` belongs to the engines' account: data, passwords and logs lie below it."""

    name: str
    home: Path
    port: int
    rest_port: int


def patroni_config(
    member: Member,
    *,
    binaries: Path,
    etcd_ports: list[int],
    secrets: Secrets,
    parameters: dict[str, Any],
) -> dict[str, Any]:
    """As Patroni's YAML file has it. JSON is YAML."""
    return {
        "scope": SCOPE,
        "name": member.name,
        "log": {
            "dir": str(member.home / "log"),
            "file_num": LOG_FILES,
            "file_size": LOG_BYTES_MAX,
            "level": "INFO",
        },
        "restapi": {
            "listen": f"127.0.0.1:{member.rest_port}",
            "connect_address": f"127.0.0.1:{member.rest_port}",
            "authentication": {"username": REST_USER, "password": secrets.rest},
        },
        "etcd3": {
            "hosts": [f"127.0.0.1:{port}" for port in etcd_ports],
            "username": "root",
            "password": secrets.etcd,
        },
        "bootstrap": {
            "dcs": cluster_config(parameters),
            "initdb": [
                {"encoding": "UTF8"},
                {"locale": "C"},
                {"locale-provider": "builtin"},
                {"builtin-locale": "C.UTF-8"},
                {"auth": "scram-sha-256"},
                "data-checksums",
            ],
        },
        "postgresql": _server_config(member, binaries, secrets),
        "watchdog": {"mode": "off"},
    }


def _server_config(member: Member, binaries: Path, secrets: Secrets) -> dict[str, Any]:
    """How this member's own server is run."""
    return {
        "listen": f"127.0.0.1:{member.port}",
        "connect_address": f"127.0.0.1:{member.port}",
        "bin_dir": str(binaries),
        "data_dir": str(member.home / "pg"),
        "pgpass": str(member.home / "pgpass"),
        "authentication": {
            "superuser": {"username": USER, "password": secrets.superuser},
            "replication": {"username": REPLICATOR, "password": secrets.replication},
            "rewind": {"username": REWINDER, "password": secrets.rewind},
        },
        "parameters": {"unix_socket_directories": "", "password_encryption": "scram-sha-256"},
        "pg_hba": [
            f"host replication {REPLICATOR} {LOCAL} scram-sha-256",
            f"host all all {LOCAL} scram-sha-256",
        ],
        "create_replica_methods": ["basebackup"],
        "basebackup": [{"checkpoint": "fast"}],
        # a member that cannot be rewound is copied anew; its own data are no one else's truth
        "remove_data_directory_on_rewind_failure": True,
        "remove_data_directory_on_diverged_timelines": True,
    }


def cluster_config(parameters: dict[str, Any]) -> dict[str, Any]:
    """What all members share; it lives in etcd, and `patronictl edit-config` changes it."""
    return {
        "ttl": TTL_S,
        "loop_wait": LOOP_WAIT_S,
        "retry_timeout": RETRY_TIMEOUT_S,
        "maximum_lag_on_failover": 1_048_576,
        "primary_start_timeout": 0,
        "primary_stop_timeout": 10,
        "synchronous_mode": "quorum",
        "synchronous_mode_strict": True,
        "synchronous_node_count": 1,
        "failsafe_mode": True,
        "postgresql": {
            "use_pg_rewind": True,
            "use_slots": True,
            "parameters": {
                "wal_level": "logical",
                "wal_log_hints": "on",
                "hot_standby": "on",
                "max_connections": 200,
                "max_wal_senders": 10,
                "max_replication_slots": 10,
                "max_worker_processes": 8,
                "wal_keep_size": "256MB",
                "max_slot_wal_keep_size": "1GB",
                "max_wal_size": "512MB",
                "shared_buffers": "64MB",
                "wal_sender_timeout": "5s",
                "wal_receiver_timeout": "5s",
                "wal_retrieve_retry_interval": "500ms",
                "log_min_messages": "warning",
            }
            | parameters,
        },
    }
