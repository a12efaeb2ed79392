"""``voxplane audit``: who did what and who read what was said, and whether that is as it was written.

Decides how these commands are written and what they print. What a file proves is found here, without a server.
"""

from __future__ import annotations

import json
import sys
from contextlib import aclosing, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from app.cli.listing import Listing
from app.cli.run import client, fail, operator, run
from app.cli.times import time_of

if TYPE_CHECKING:
    from voxplane import AsyncClient

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")]
Platform = Annotated[
    bool, typer.Option("--platform", help="The platform's own log, with the operator's key.")
]
From = Annotated[
    str | None, typer.Option("--from", metavar="WHEN", help="Since 30m, 24h, 7d ago, or a time in RFC 3339.")
]
To = Annotated[
    str | None, typer.Option("--to", metavar="WHEN", help="What was before, written the same way.")
]
SUMMARY_CHARS = 60

audit_app = typer.Typer(
    cls=Listing, help="Show, verify and export the audit log.", no_args_is_help=True, rich_markup_mode=None
)


@audit_app.command("list")
def audit_list(
    actor: Annotated[str | None, typer.Option(metavar="ID", help="Of this key, person or edge.")] = None,
    action: Annotated[str | None, typer.Option(help="Such as key.created, or 'key.*'.")] = None,
    target: Annotated[str | None, typer.Option(metavar="ID", help="What was done to this.")] = None,
    since: From = None,
    until: To = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="So many at most, the newest.")] = 50,
    platform: Platform = False,
    json_: JsonFlag = False,
) -> None:
    """Show who did what, the newest first.

    \b
    Example:
      voxplane audit list --action 'key.*' --from 7d
      voxplane audit list --target call_01j…   (who read this conversation)
    """
    params: dict[str, Any] = {"actor": actor, "action": action, "target": target}
    params |= {"from": _time(since, "--from"), "to": _time(until, "--to")}

    async def work() -> None:
        found: list[dict[str, Any]] = []
        async with _api(platform) as api:
            cursor: str | None = None
            while len(found) < limit:
                asked = params | {"cursor": cursor, "limit": min(200, limit - len(found))}
                page = await api.request("GET", _path(platform), params=asked)
                found += page["data"]
                cursor = page["next_cursor"]
                if cursor is None:
                    break
        typer.echo(json.dumps(found) if json_ else "\n".join(map(_line, found)) or "nothing")

    run(work)


@audit_app.command("verify")
def audit_verify(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="An export; without one the deployment's log is verified.", exists=True, dir_okay=False
        ),
    ] = None,
    keys: Annotated[
        list[str] | None,
        typer.Option(
            "--key", metavar="HEX", help="Of a file: only this public key is trusted; repeat it for several."
        ),
    ] = None,
    since: From = None,
    platform: Platform = False,
    json_: JsonFlag = False,
) -> None:
    """Find out whether the log is as it was written; exit code 1 where it is not.

    Names the entry at which an edit, a deletion, an insertion or another order shows. A FILE is verified here, without a server.

    \b
    Example:
      voxplane audit verify
      voxplane audit verify audit.jsonl --key 8f3c…   (from `voxplane audit verify --json | jq .keys`)
    """  # fmt: skip
    reports: list[dict[str, Any]] = []

    async def work() -> None:
        async with _api(platform) as api:
            asked = {"from": _time(since, "--from")}
            reports.append(await api.request("GET", f"{_path(platform)}/verify", params=asked))

    if file is not None:
        if since is not None or platform:
            raise fail("--from and --platform are not for a file: it says itself whose it is", 2)
        reports.append(_of_file(file, frozenset(keys or [])))
    elif keys:
        raise fail("--key is for a file: name one", 2)
    else:
        run(work)
    report = reports[0]
    typer.echo(json.dumps(report) if json_ else "\n".join(_verdict(report)))
    if not report["ok"]:
        raise typer.Exit(1)


@audit_app.command("export")
def audit_export(
    shape: Annotated[Literal["jsonl", "csv"], typer.Option("--format", help="jsonl or csv.")] = "jsonl",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to; else it is printed.", dir_okay=False),
    ] = None,
    since: From = None,
    until: To = None,
    platform: Platform = False,
) -> None:
    """Write the log with everything that is needed to verify it elsewhere: JSON lines, or CSV.

    \b
    Example:
      voxplane audit export -o audit.jsonl && voxplane audit verify audit.jsonl
    """  # fmt: skip
    params = {"format": shape, "from": _time(since, "--from"), "to": _time(until, "--to")}

    async def work() -> None:
        async with (
            _api(platform) as api,
            aclosing(api.download(f"{_path(platform)}/export", params)) as pieces,
        ):
            if output is None:
                async for piece in pieces:
                    sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
                return
            try:
                with closing(output.open("wb")) as out:
                    async for piece in pieces:
                        out.write(piece)
            except OSError as error:
                raise fail(f"{output} cannot be written: {error.strerror}") from None

    run(work)


def _api(platform: bool) -> AsyncClient:
    return operator() if platform else client(timeout_s=60.0)


def _path(platform: bool) -> str:
    return "/admin/v1/audit" if platform else "/v1/audit"


def _time(text: str | None, option: str) -> str | None:
    return time_of(text, option) if text is not None else None


def _of_file(file: Path, trusted: frozenset[str]) -> dict[str, Any]:
    from app.audit.exporting import BadExport, raw
    from app.audit.offline import verify

    try:
        with file.open(encoding="utf-8", newline="") as text:
            found = verify(text, trusted)
    except (BadExport, UnicodeDecodeError) as error:
        raise fail(f"{file}: {error}", 2) from None
    return {
        "ok": not found.faults,
        "entries": found.entries,
        "anchors": found.anchors,
        "unanchored": found.unanchored,
        "erased": found.erased,
        "dropped": found.dropped,
        "dropped_at": found.dropped_at,
        "anchor": "{}:{}".format(*found.newest_anchor) if found.newest_anchor else None,
        "anchored_at": found.anchored_at,
        "faults": [
            {"what": f.what, "where": f.where, "detail": f.detail, "entry": f.entry} for f in found.faults
        ],
        "keys": [{"kid": kid, "public_key": raw(key)} for kid, key in found.keys.items()],
    }


def _line(entry: dict[str, Any]) -> str:
    summary = json.dumps(entry["summary"], ensure_ascii=False) if entry["summary"] else ""
    short = summary if len(summary) <= SUMMARY_CHARS else summary[: SUMMARY_CHARS - 1] + "…"
    who = f"{entry['actor']['kind']} {entry['actor']['id']}"
    return f"{entry['at']}  {entry['action']:<22} {entry['target'] or '–':<32} {who}  {entry['address'] or '–'}  {short}"


def _verdict(report: dict[str, Any]) -> list[str]:
    said = [f"{f['where']}: {f['what']}: {f['detail']}" for f in report["faults"]]
    counted = f"{report['entries']} entries, {report['anchors']} anchors, {report['unanchored']} entries not anchored yet"
    if report["erased"]:
        counted += f", {report['erased']} entries whose address and summary were erased"
    said.append(f"{'as it was written' if report['ok'] else 'NOT as it was written'}: {counted}")
    if report["dropped"]:
        said.append(
            f"not here: {report['dropped']} entries dropped for their age, the last at {report['dropped_at']}, as is signed"
        )
    said += [f"signed by {key['kid']} {key['public_key']}" for key in report["keys"]]
    return said
