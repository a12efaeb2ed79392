"""``voxplane call``, ``voxplane call timeline`` and ``voxplane place``: calls of one's own, what became of them, where one would go.

Decides how these commands are written and what they print.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.listing import Listing
from app.cli.run import client, run

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")]
Dialect = Annotated[str, typer.Option(help="How the backend speaks.")]
NOBODYS_AGENT = "wss://backend.example.com/"
"""A preview asks of the backend only how far it is."""

call_app = typer.Typer(cls=Listing, invoke_without_command=True, rich_markup_mode=None)


@call_app.callback()
def call(
    context: typer.Context,
    agent: Annotated[
        str | None, typer.Option(help="The backend's WebSocket, such as ws://localhost:8765/ws.")
    ] = None,
    wav: Annotated[
        Path | None, typer.Option(help="What the caller says: 16-bit PCM, 8, 16, 24 or 48 kHz.")
    ] = None,
    browser: Annotated[
        bool,
        typer.Option("--browser", help="Talk yourself: print the address of the edge's page, and open it."),
    ] = False,
    webrtc: Annotated[
        bool, typer.Option("--webrtc", help="With --browser: audio over WebRTC, not over a WebSocket.")
    ] = False,
    dialect: Dialect = "twilio",
    out: Annotated[
        Path | None, typer.Option(help="Where to write what the caller hears, at the same rate.")
    ] = None,
    listen_s: Annotated[
        float, typer.Option(min=0, max=3600, help="How long to listen after the last word.")
    ] = 8.0,
) -> None:
    """Call your own backend with a WAV file or a microphone; or show what became of a call.

    With --wav: places a call, says the file in real time, listens, and prints what the conversation was. Stereo is mixed to one
    channel. With --browser: places a call, and leaves the talking to you, in the page that its edge serves. The address is a key to
    the call: give it to nobody.

    \b
    Example, with `voxplane up` running and a bot of yours on port 8765:
      voxplane call --agent ws://localhost:8765/ws --wav question.wav --out reply.wav
      voxplane call --agent ws://localhost:8765/ws --browser --webrtc
      voxplane call timeline call_01j…
    """
    if context.invoked_subcommand is not None:
        return
    if agent is None or (wav is None and not browser):
        missing = "--agent" if agent is None else "--wav, or --browser,"
        raise typer.BadParameter(f"{missing} is missing.", ctx=context)
    backend = agent
    if browser:
        if wav is not None or out is not None:
            raise typer.BadParameter("--browser takes neither --wav nor --out: you talk.", ctx=context)
        from app.local.talk import open_talk

        run(lambda: open_talk(client(), agent=backend, dialect=dialect, webrtc=webrtc))
        return
    if webrtc:
        raise typer.BadParameter(
            "--webrtc goes with --browser: a file is said over a WebSocket.", ctx=context
        )
    assert wav is not None
    from app.local.speak import place_call

    file = wav
    run(lambda: place_call(client(), agent=backend, dialect=dialect, wav=file, out=out, listen_s=listen_s))


@call_app.command("timeline")
def timeline(
    call_id: Annotated[str, typer.Argument(help="call_…", metavar="ID")], json_: JsonFlag = False
) -> None:
    """Show what happened to a call, in order, and why it was placed where it was.

    \b
    Example:
      voxplane call timeline call_01j… --json | jq '.entries[] | select(.owner)'
    """

    async def work() -> None:
        async with client() as api:
            found = await api.timeline(call_id)
        typer.echo(json.dumps(found) if json_ else "\n".join(timeline_lines(found)))

    run(work)


def place(
    agent: Annotated[
        str, typer.Option(help="The backend's WebSocket: how far it is counts.")
    ] = NOBODYS_AGENT,
    address: Annotated[
        str | None, typer.Option(help="The caller's IP address: what is known of its network counts.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="With the round trips from here to every region.")
    ] = False,
    allow: Annotated[
        list[str] | None, typer.Option(help="Only these regions; repeat it for several.")
    ] = None,
    jurisdiction: Annotated[
        list[str] | None, typer.Option(help="Only regions of these; repeat it for several.")
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Show where a call would be placed now, and why. Nothing is created.

    \b
    Example:
      voxplane place --address 203.0.113.7 --jurisdiction eu
    """
    from voxplane import probe_regions

    async def work() -> None:
        async with client() as api:
            measured = await probe_regions(await api.regions()) if measure else []
            regions = {"allow": allow or [], "jurisdictions": jurisdiction or []}
            found = await api.preview_placement(
                agent,
                latencies=measured,
                regions={k: v for k, v in regions.items() if v},
                caller={"address": address} if address else None,
            )
        typer.echo(json.dumps(found) if json_ else "\n".join(placement_lines(found)))

    run(work)


def placement_lines(placement: dict[str, Any]) -> list[str]:
    """The record of a placement: where, the standbys, and each region with the reason."""
    standbys = ", ".join(s["region"] for s in placement["standbys"]) or "none"
    reduced = f" ({placement['protection_reason']})" if placement["protection_reason"] else ""
    said = [f"{placement['region']}, standbys {standbys}; protection {placement['protection']}{reduced}"]
    for c in placement["candidates"]:
        backend = "" if c["backend_ms"] is None else f" + {c['backend_ms']:g} ms to the backend"
        said.append(
            f"  {c['region']:<14} {c['reason']:<12} {c['rtt_ms']:7.1f} ms {c['source']:<10} {c['load']:>4.0%} full,"
            f" cost {c['cost_ms']:g}{backend}"
        )
    return said


def timeline_lines(found: dict[str, Any]) -> list[str]:
    said = placement_lines(found["placement"])
    said += [f"{e['at']}  {_what(e)}" for e in found["entries"]]
    said += [
        f"{e['at']}  late: {e['type']} of epoch {e['epoch']}, {e['region'] or e['edge']}"
        for e in found["late"]
    ]
    said += [f"there is more: {what}" for what in found["incomplete"]]
    ended = f", {found['end_reason']}" if found["end_reason"] else ""
    return [*said, f"{found['state']}{ended}"]


def _what(entry: dict[str, Any]) -> str:
    if entry["kind"] == "move":
        move = entry["move"]
        return f"asked to move by the {move['by']}, epoch {move['epoch']}: {move['outcome'] or 'under way'}"
    if entry["kind"] == "delivery":
        sent = entry["delivery"]
        result = sent["error"] if sent["status"] is None else sent["status"]
        return (
            f"{sent['event_type'] or sent['event_seq']} to {sent['webhook_id']}, attempt {sent['attempt']}: {result},"
            f" {sent['duration_ms']} ms"
        )
    state = f" → {entry['state']}" if "state" in entry else ""
    owner = entry.get("owner")
    has = f"  [{owner['region'] or owner['edge']} has it: {owner['why']}]" if owner else ""
    return f"{entry['seq']:>4}  epoch {entry['epoch']}  {entry['type']}{state}{has}"
