"""Where an edge keeps what the log has not acknowledged: names in its region's Valkey, shared with who flushes it.

Everything of one edge stands below ``spool:{edge}:``, the only prefix it may write; so the prefix says whose events they are.

    spool:{edge}:incarnations                         set of incarnations that have spooled something
    spool:{edge}:{incarnation}:calls                  set of "{call}/{epoch}"
    spool:{edge}:{incarnation}:{call}/{epoch}         hash of n → the event (`EdgeEvent`) as JSON, sealed: `wire.keeping`
"""

from __future__ import annotations

KEPT_S = 7 * 24 * 3600
"""What nobody flushes goes after a week."""


def spool_prefix(edge: str) -> str:
    return f"spool:{edge}:"


def incarnations_key(edge: str) -> str:
    return f"{spool_prefix(edge)}incarnations"


def calls_key(edge: str, incarnation: str) -> str:
    return f"{spool_prefix(edge)}{incarnation}:calls"


def events_key(edge: str, incarnation: str, run: str) -> str:
    """`run`: see `run_name`."""
    return f"{spool_prefix(edge)}{incarnation}:{run}"


def entry_place(events_key: str, n: str) -> str:
    """What an entry is sealed for."""
    return f"{events_key}#{n}"


def run_name(call: str, epoch: int) -> str:
    return f"{call}/{epoch}"


def read_run_name(run: str) -> tuple[str, int]:
    """Call and epoch; raises `ValueError` for what `run_name` has not made."""
    call, _, epoch = run.partition("/")
    if not (epoch.isascii() and epoch.isdigit()):
        raise ValueError("not a run")
    return call, int(epoch)
