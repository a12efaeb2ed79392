"""The inner addresses that a test project lets its webhooks reach, for development. Decides who may have any, and what is stored.

They stand in the project's own row. Off unless the deployment allows it; a live project never has any, whatever its row says.
"""

from __future__ import annotations

import msgspec

from app.errors import FieldError, Forbidden, Invalid, NotAvailable
from regions.wire.targets import TargetError, Targets, read_target, read_targets

TEST = "test"


class _Settings(msgspec.Struct, frozen=True):
    targets: tuple[str, ...] = ()


def listed_in(settings: str | None) -> tuple[str, ...]:
    """As they were written. `settings`: of the project's row, as JSON."""
    return msgspec.json.decode(settings or "{}", type=_Settings).targets


def targets_of(mode: str, settings: str | None) -> Targets | None:
    """None: no inner address at all."""
    given = listed_in(settings) if mode == TEST else ()
    return read_targets(given) if given else None


def checked(given: list[str], *, mode: str, allowed: bool) -> list[str]:
    """As they are stored, each once. Raises `Forbidden`, `NotAvailable` or `Invalid`; to take all away is always allowed."""
    if not given:
        return []
    if mode != TEST:
        raise Forbidden(
            "A live project's webhooks reach public addresses alone.",
            code="live_project",
            fix="Use a test project, or `voxplane listen --forward` to bring events to a private address.",
        )
    if not allowed:
        raise NotAvailable(
            "This deployment lets no project list targets.",
            fix="Its operator sets VOXPLANE_ALLOW_PROJECT_TARGETS=1; or use `voxplane listen --forward`.",
        )
    faults: list[FieldError] = []
    for i, text in enumerate(given):
        try:
            read_target(text)
        except TargetError as error:
            faults.append(FieldError(pointer=f"/targets/{i}", detail=str(error)))
    if faults:
        raise Invalid("These targets cannot be listed.", errors=faults)
    return list(dict.fromkeys(text.lower() for text in given))
