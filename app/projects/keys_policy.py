"""How long and from where a key may be used that another key hands out: never longer, and from nowhere else; and what a key may do
once it was narrowed: never more. Pure.

Without it, a key that ends tomorrow or is bound to one address could make itself another that is neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.errors import FieldError
from app.peer import Network, read_network
from app.projects.roles import ROLE_SCOPES, permissions


@dataclass(frozen=True, slots=True)
class Held:
    """`until` None: without an end. `allow_from` none: from anywhere."""

    until: datetime | None = None
    allow_from: tuple[str, ...] = ()

    @property
    def networks(self) -> list[Network]:
        return [read_network(text) for text in self.allow_from]


UNHELD = Held()


def within(asked: Held, own: Held) -> tuple[Held, list[FieldError]]:
    """What a key is given by one that is held by `own`: of what was not asked for, what that has; and what was asked beyond it."""
    faults: list[FieldError] = []
    if asked.until is not None and not _ends(asked.until, own):
        faults.append(FieldError(pointer="/expires_at", detail="your own key ends before"))
    bounds = own.networks
    if bounds:
        faults += [
            FieldError(pointer=f"/allow_from/{i}", detail="your own key may not be used from there")
            for i, network in enumerate(asked.networks)
            if not _lies_in(network, bounds)
        ]
    return Held(asked.until or own.until, asked.allow_from or own.allow_from), faults


def no_wider(held: Held, own: Held) -> bool:
    """Whether a key that is held so can be used no longer, and from no other place, than one held by `own`."""
    given, faults = within(held, own)
    return not faults and given == held


def narrowed(
    role: str, scopes: Sequence[str], to_role: str | None, to_scopes: Sequence[str] | None
) -> tuple[str, list[str], list[FieldError]]:
    """The role and the scopes that a key has afterwards, and what is wrong with what was asked. None: it stays as it is."""
    may, new = permissions(role, scopes), to_role or role
    if to_scopes is not None:
        kept = list(dict.fromkeys(to_scopes))
        faults = [
            FieldError(
                pointer=f"/scopes/{i}", detail="unknown, or beyond the role, or the key does not have it"
            )
            for i, scope in enumerate(to_scopes)
            if scope not in may & ROLE_SCOPES[new]
        ]
    else:
        kept, faults = [s for s in scopes if s in ROLE_SCOPES[new]], []
        if scopes and not kept:
            faults.append(
                FieldError(pointer="/role", detail="has none of the key's scopes: name some in `scopes`")
            )
    if not faults and not kept and not ROLE_SCOPES[new] <= may:
        more = ", ".join(sorted(ROLE_SCOPES[new] - may))
        faults.append(
            FieldError(pointer="/role", detail=f"would let the key do more ({more}): name its scopes")
        )
    return new, kept, faults


def _ends(until: datetime, own: Held) -> bool:
    return own.until is None or until <= own.until


def _lies_in(network: Network, bounds: Sequence[Network]) -> bool:
    return any(network.version == b.version and network.subnet_of(b) for b in bounds)  # type: ignore[arg-type]
