"""What a page of the console is, and where it stands in the navigation. Pure.

A page is one module of `app.console` with a `PAGE` and its `ROUTES`; `app.console.routes` names the module, and that is all:

    PAGE = Page(key="calls", label="Calls", jump="c", icon="calls", needs="calls:read")

    @get("/p/{project:str}/calls")
    async def show(visit: VisitIn) -> Html:
        here = visit.project                       # its `principal`, `control`, `path(…)`; 404 for who is no member
        here.principal.require("calls:read")
        found = await here.control.calls.page(here.principal, …)
        return visit.page("calls.html", PAGE, calls=found)

The template begins with `{% extends "base.html" %}` and fills `block main`; macros for states, ids, times, empty places and forms
are in `_parts.html`. A part that is fetched by itself (`hx-get`) is a route that answers `visit.part("_calls_rows.html", …)`.
A POST takes `form: FormIn`, which refuses what does not come from a form of this session, and answers
`visit.back(here.path("calls"), done="key_revoked")`; the sentence for that word stands in `DONE`. What lives is an event
stream: `app.console.live.stream(visit, …)`, named by `sse-connect` on the element whose parts it replaces by id.
No script, style or handler stands in the page itself: the policy of the browser refuses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """`key`: the last part of its path. `jump`: `g` and this letter lead to it. `needs`: the permission without which it is not
    shown; for scope ``platform`` one has to be an operator of the platform. `icon`: a symbol of `icons.svg`."""

    key: str
    label: str
    jump: str
    icon: str
    needs: str = ""
    scope: Literal["project", "platform"] = "project"


DONE = {
    "signed_out": "You are signed out.",
    "signed_out_everywhere": "You are signed out in every browser.",
    "call_ended": "The call is ended.",
    "call_moving": "The call is asked to move. It goes at the end of a turn.",
    "webhook_enabled": "The endpoint is enabled, and why it was disabled is forgotten.",
    "webhook_disabled": "The endpoint gets nothing any more until it is enabled.",
    "webhook_changed": "The endpoint is changed. What is sent from now on follows it.",
    "webhook_unchanged": "Nothing was different: the endpoint is as it was.",
    "webhook_deleted": "The endpoint is removed.",
    "event_resent": "The event is sent again.",
    "replay_started": "The replay has begun.",
    "replay_canceled": "Nothing more of the replay is queued.",
    "key_changed": "The key is changed. It may do what stands here, everywhere within seconds.",
    "key_revoked": "The key is revoked. It stops working everywhere within seconds.",
    "member_set": "The member's role is set.",
    "member_removed": "The member is removed. What they had open here is closed to them.",
    "person_created": "The account is made. Send its owner the link below.",
    "person_removed": "The account is removed, and signed out everywhere.",
    "person_erased": "The audit log has no address and no detail of this person any more. What was done, and when, stays.",
    "person_partly_erased": "Some of it is left: there was too much at once, or a cell is away. Erase once more.",
    "person_changed": "The account is changed.",
    "region_cordoned": "The region takes no new calls. Those that run stay.",
    "region_uncordoned": "The region takes calls again.",
    "region_draining": "The region is being drained: calls leave at the end of a turn.",
    "region_evacuating": "The region is being evacuated: calls leave now.",
    "edge_cordoned": "The edge takes no new calls. Those that run stay.",
    "edge_uncordoned": "The edge takes calls again.",
    "edge_draining": "The edge is being drained: calls leave at the end of a turn.",
    "edge_evacuating": "The edge is being evacuated: calls leave now.",
    "edge_key_asked": "The edge is asked for another key. Calls and uplink stay as they are.",
    "drill_started": "The drill has begun.",
    "drill_stopping": "The drill cuts no more calls. What was cut is followed to its end.",
}
"""What is said at the top of a page after something was done, by the word in `?done=`. Nothing of a query is shown itself."""

PAGES: list[Page] = []
"""All of them, in the order of the navigation: filled by `app.console.routes` when it is imported."""
