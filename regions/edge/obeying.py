"""Carries out what the control plane wants of this edge: each command once, in its order. Decides which of the calls is meant."""

from __future__ import annotations

from regions.edge.calls import Calls
from regions.wire.uplink import Command, Cut, Desired, Done


class Obeying:
    """`done_version`: of the newest command carried out; 0 for none."""

    def __init__(self) -> None:
        self.done_version = 0

    def carry_out(self, desired: Desired, calls: Calls) -> Done:
        held: list[str] = []
        cut: list[Cut] = []
        for command in desired.commands:
            if command.version <= self.done_version:
                continue
            if command.kind == "cut":
                cut.append(_cut(calls, command))
            elif not _obey(calls, command):
                held.append(command.call or "")
            self.done_version = command.version
        return Done(version=self.done_version, held=held, cut=cut)


def _cut(calls: Calls, command: Command) -> Cut:
    epoch = command.body.get("epoch", "")
    return calls.cut(command.call or "", int(epoch) if epoch.isdecimal() else 0, command.body.get("how", ""))


def _obey(calls: Calls, command: Command) -> bool:
    """False where the call that was to be denied is held."""
    call, body = command.call, command.body
    match command.kind:
        case "end" if call is not None:
            calls.end(call, body.get("end_reason", "ended_by_api"))
        case "deny" if call is not None:
            epoch = body.get("epoch", "")
            return epoch.isdecimal() and calls.deny(call, int(epoch))
        case "move" if call is not None:
            within_ms = body.get("within_ms", "")
            calls.move(
                call,
                body.get("ticket", ""),
                int(within_ms) if within_ms.isdecimal() else 0,
                forced=body.get("forced") != "false",
            )
        case "ticket" if call is not None and body.get("ticket"):
            calls.renew(call, body["ticket"])
        case "stay" if call is not None:
            epoch = body.get("epoch", "")
            calls.stay(call, int(epoch) if epoch.isdecimal() else None)
        case "hangup" if call is not None:
            epoch, socket, until_ms = (body.get(name, "") for name in ("epoch", "socket", "until_ms"))
            if epoch.isdecimal() and socket.isdecimal() and until_ms.isdecimal():
                calls.hang_up(call, int(epoch), int(socket), int(until_ms))
        case "drain" | "undrain":
            calls.drain(on=command.kind == "drain")
    return True
