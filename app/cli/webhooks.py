"""The commands about webhooks: endpoints, forwarding to this machine, examples, and sending again."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.listing import Listing
from app.cli.run import client, fail, named, run
from app.cli.times import ago, time_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from app.local.listen import Forwarded
    from voxplane import AsyncClient

webhooks_app = typer.Typer(
    cls=Listing,
    help="Endpoints: create, list, change, rotate, look after.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")]
HookId = Annotated[str, typer.Argument(help="whk_…  (`voxplane webhooks list` shows the ids)")]
Types = Annotated[
    list[str] | None,
    typer.Option("--types", "-t", help="Event types, such as call.ended or 'call.*'; repeat it for several."),
]
PORT_MAX = 65_535


@webhooks_app.command("create")
def create(
    url: Annotated[str, typer.Argument(help="Where to send events.")],
    types: Types = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    json_: JsonFlag = False,
) -> None:
    """Have the project's events sent to a URL; its secret is shown this once.

    \b
    Example:
      voxplane webhooks create https://example.com/hook --types 'call.*'
    """

    async def work() -> None:
        async with client() as api:
            body = {"url": url, "description": description, **({"types": types} if types else {})}
            made = await api.request("POST", "/v1/webhooks", body)
        typer.echo(json.dumps(made) if json_ else f"{made['id']}\n{made['secret']}")

    run(work)


@webhooks_app.command("list")
def list_(json_: JsonFlag = False) -> None:
    """List the endpoints and how they do.

    \b
    Example:
      voxplane webhooks list
    """

    async def work() -> None:
        async with client() as api:
            found = [hook async for hook in _all(api)]
        if json_:
            typer.echo(json.dumps(found))
            return
        if not found:
            typer.echo("no endpoints: `voxplane webhooks create URL` makes one")
        for hook in found:
            wanted = ",".join(hook["types"] or ["*"])
            typer.echo(f"{hook['id']}  {_state(hook):<10} {hook['url']}  {wanted}")

    run(work)


@webhooks_app.command("health")
def health(hook: HookId, json_: JsonFlag = False) -> None:
    """Show how deliveries to an endpoint do, and the newest attempts.

    \b
    Example:
      voxplane webhooks health whk_01j…
    """

    async def work() -> None:
        async with client() as api:
            seen = await api.request("GET", f"/v1/webhooks/{named(hook)}/health")
            page = await api.request("GET", f"/v1/webhooks/{named(hook)}/attempts", params={"limit": 10})
        if json_:
            typer.echo(json.dumps(seen | {"attempts": page["data"]}))
            return
        shown = {name: value for name, value in seen.items() if value is not None}
        for name, value in shown.items():
            typer.echo(f"{name:<18} {value}")
        for a in page["data"]:
            result = a["status"] if a["status"] is not None else a["error"]
            place = f"{a['call_id']}:{a['event_seq']}"
            typer.echo(f"{a['at']}  {place}  attempt {a['attempt']}  {result}  {a['duration_ms']} ms")

    run(work)


@webhooks_app.command("rotate")
def rotate(
    hook: HookId,
    overlap: Annotated[
        str, typer.Option(help="How long the present secret signs too: 24h, 30m, 0s.")
    ] = "24h",
    secret: Annotated[
        str | None, typer.Option(help="One of your own (whsec_…); else a new one is made.")
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Make a new secret; the present one signs too for a while.

    \b
    Example:
      voxplane webhooks rotate whk_01j… --overlap 1h
    """
    overlap_s = 0 if overlap in ("0", "0s") else int(ago(overlap, "--overlap").total_seconds())
    body = {"overlap_s": overlap_s} | ({"secret": secret} if secret else {})

    async def work() -> None:
        async with client() as api:
            made = await api.request("POST", f"/v1/webhooks/{named(hook)}/rotate", body)
        typer.echo(json.dumps(made) if json_ else made["secret"])

    run(work)


@webhooks_app.command("delete")
def delete(hook: HookId, json_: JsonFlag = False) -> None:
    """Remove an endpoint; what waits for it is dropped.

    \b
    Example:
      voxplane webhooks delete whk_01j…
    """

    async def work() -> None:
        async with client() as api:
            await api.request("DELETE", f"/v1/webhooks/{named(hook)}")
        typer.echo(json.dumps({"id": hook}) if json_ else "removed")

    run(work)


@webhooks_app.command("resend")
def resend(
    hook: HookId,
    event: Annotated[str, typer.Argument(help="The call and the event's seq: call_…:7")],
    json_: JsonFlag = False,
) -> None:
    """Send one event again.

    \b
    Example:
      voxplane webhooks resend whk_01j… call_01j…:7
    """
    call_id, _, seq = event.rpartition(":")
    if not call_id or not seq.isascii() or not seq.isdigit():
        raise fail("name the event by its call and seq, such as call_01j…:7", 2)

    async def work() -> None:
        async with client() as api:
            await api.request(
                "POST", f"/v1/webhooks/{named(hook)}/resend", {"call_id": call_id, "seq": int(seq)}
            )
        typer.echo(json.dumps({"call_id": call_id, "seq": int(seq)}) if json_ else "queued")

    run(work)


def listen(
    forward: Annotated[str, typer.Option(help="Where to send them, such as http://localhost:3000/hook.")],
    types: Types = None,
    secret: Annotated[str, typer.Option(help="Sign with this one (whsec_…); else a new one is made.")] = "",
    json_: Annotated[bool, typer.Option("--json", help="One JSON document per event, for machines.")] = False,
) -> None:
    """Forward the project's events to this machine, signed like webhooks.

    Needs no public address. Every event is sent once, in order per call, with the answer and its time printed.

    \b
    Example:
      voxplane listen --forward http://localhost:3000/hook --types 'call.*'
    """
    from app.local.listen import Forwarder

    used = _secret_for(forward, secret)

    def opened() -> None:
        typer.echo(f"voxplane: ready, forwarding to {forward}, until Ctrl-C", err=True)

    async def work() -> None:
        typer.echo(f"voxplane: signed with {used}", err=True)
        async with client() as api:
            await api.request("GET", "/v1/events", params={"limit": 1})
            await Forwarder(forward, used, lambda f: typer.echo(_line(f, as_json=json_))).follow(
                api, types or [], opened
            )

    run(work)


def trigger(
    type_: Annotated[str, typer.Argument(metavar="TYPE", help="An event type, such as call.ended.")],
    webhook: Annotated[str, typer.Option(help="Only to this endpoint; else to every enabled one.")] = "",
    forward: Annotated[
        str, typer.Option(help="Straight to this URL, from this machine, such as http://localhost:3000/hook.")
    ] = "",
    secret: Annotated[str, typer.Option(help="With --forward: sign with this one (whsec_…).")] = "",
    json_: JsonFlag = False,
) -> None:
    """Have an example of an event sent to the project's endpoints, signed, and show what they answer.

    Nothing is stored: the event is of a call that never was. With --forward it goes from here to a URL of this machine, as
    `listen` forwards, and no server is asked; give the secret that `listen` has printed.

    \b
    Example:
      voxplane trigger call.ended
      voxplane trigger call.ended --forward http://localhost:3000/hook --secret whsec_…
    """
    if forward and webhook:
        raise fail("--forward and --webhook are two places: choose one", 2)

    async def work() -> None:
        if forward:
            await _trigger_here(type_, forward, secret, json_=json_)
            return
        async with client() as api:
            hooks = [webhook] if webhook else await _enabled(api)
            if not hooks:
                raise fail("the project has no enabled endpoint: `voxplane webhooks create URL` makes one")
            results = [
                await api.request("POST", f"/v1/webhooks/{named(h)}/test", {"type": type_}) for h in hooks
            ]
        answers = [{"webhook_id": h} | r for h, r in zip(hooks, results, strict=True)]
        if json_:
            typer.echo(json.dumps(answers))
        else:
            _show_answers(answers)
        if not all(r["ok"] for r in results):
            raise typer.Exit(1)

    run(work)


def _show_answers(answers: list[dict[str, Any]]) -> None:
    for answer in answers:
        said = answer["status"] if answer["status"] is not None else answer["error"]
        who = f"{answer['webhook_id']}  {answer['type']}  {answer['event_id']}"
        typer.echo(f"{who}  {said}  {answer['duration_ms']} ms")
        if answer["fix"]:
            typer.echo(f"  {answer['fix']}", err=True)


def replay(
    hook: HookId,
    since: Annotated[str, typer.Option(help="From when: 2h, 30m, 7d, or RFC 3339.")],
    until: Annotated[str, typer.Option(help="Up to when; left out, now.")] = "",
    what: Annotated[str, typer.Option(help="undelivered, failed, missing or all.")] = "undelivered",
    json_: JsonFlag = False,
) -> None:
    """Send again what an endpoint missed, and wait until it is through; fails where it was canceled on the way.

    \b
    Example:
      voxplane replay whk_01j… --since 2h
    """
    body = {"since": time_of(since, "--since"), "what": what}
    if until:
        body["until"] = time_of(until, "--until")

    async def work() -> None:
        async with client() as api:
            path = f"/v1/webhooks/{named(hook)}"
            seen = await api.request("POST", f"{path}/recover", body)
            typer.echo(f"{seen['id']}: {seen['what']} since {seen['since']}", err=True)
            while seen["state"] == "running" or seen["waiting"]:
                await asyncio.sleep(0.5)
                seen = await api.request("GET", f"{path}/replays/{seen['id']}")
                typer.echo(f"  {seen['queued']} queued, {seen['waiting']} waiting", err=True)
        typer.echo(json.dumps(seen) if json_ else f"{seen['state']}: {seen['queued']} sent again")
        if seen["state"] != "done":
            # canceled, by hand or because the endpoint was disabled or removed
            raise typer.Exit(1)

    run(work)


async def _trigger_here(type_: str, url: str, secret: str, *, json_: bool) -> None:
    import httpx
    import msgspec

    from app.clock import SystemClock
    from app.local.listen import DEADLINE_S, Forwarder
    from app.webhooks.samples import SAMPLES, sample

    if type_ not in SAMPLES:
        raise fail(
            f"there is no such event type, or it is never sent: one of {', '.join(sorted(SAMPLES))}", 2
        )
    used = _secret_for(url, secret)
    if not secret:
        typer.echo(f"voxplane: signed with {used}", err=True)
    async with httpx.AsyncClient(timeout=DEADLINE_S, trust_env=False) as http:
        event = msgspec.to_builtins(sample(type_, 0, SystemClock().now()))
        done = await Forwarder(url, used, lambda _: None).send(http, event)
    typer.echo(_line(done, as_json=json_))
    if done.status is None or not 200 <= done.status < 300:
        raise typer.Exit(1)


def _secret_for(url: str, secret: str) -> str:
    """What is signed with that is forwarded to `url`: the secret that was given, or a new one."""
    from app.local.listen import new_secret
    from app.webhooks.signature import read_secret

    if secret and read_secret(secret) is None:
        raise fail("--secret is whsec_ and 24 to 64 bytes in base64", 2)
    _check_url(url)
    return secret or new_secret()


async def _all(api: AsyncClient) -> AsyncIterator[dict[str, Any]]:
    cursor = None
    while True:
        page = await api.request("GET", "/v1/webhooks", params={"cursor": cursor, "limit": 200})
        for hook in page["data"]:
            yield hook
        cursor = page["next_cursor"]
        if cursor is None:
            return


async def _enabled(api: AsyncClient) -> list[str]:
    return [hook["id"] async for hook in _all(api) if hook["enabled"] and hook["scope"] == "project"]


def _state(hook: dict[str, Any]) -> str:
    if not hook["enabled"]:
        return "disabled"
    if hook["failing_since"]:
        return "failing"
    return "ok" if hook["verified_at"] or hook["scope"] == "call" else "unverified"


def _line(done: Forwarded, *, as_json: bool) -> str:
    event = done.event
    if as_json:
        said = {"event": event, "status": done.status, "error": done.error, "duration_ms": done.duration_ms}
        return json.dumps(said)
    result = str(done.status) if done.status is not None else f"no answer ({done.error})"
    place = f"{event['call_id']}:{event['seq']}"
    text = f"{event['timestamp']}  {event['type']:<22} {place}  -> {result}  {done.duration_ms} ms"
    return f"{text}\n  {' '.join(done.excerpt.split())}" if done.excerpt else text


def _check_url(url: str) -> None:
    import httpx

    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host or (parsed.port or 80) > PORT_MAX:
        raise fail("--forward is a URL like http://localhost:3000/hook", 2)
