"""What ``voxplane regions health`` prints. Pure: the answer of the API in, lines out."""

from __future__ import annotations

from typing import Any


def lines(found: dict[str, Any]) -> list[str]:
    said = [f"{found['region']}: {found['verdict']}" + _asks(found["action"])]
    if found["panic"]:
        said.append(
            "panic: less than half of the regions look healthy, so that suspected ones take calls again"
        )
    if found["detector"]["abstains"]:
        said.append(f"the instance that answers abstains: {found['detector']['abstains']}")
    for edge in found["edges"]:
        since = f" for {edge['since_s']:g} s" if edge["since_s"] is not None else ""
        said.append(f"  {edge['edge']}: {edge['verdict']}{since}, takes {edge['weight']:.0%}; {edge['why']}")
        said += [f"    {_signal(signal)}" for signal in edge["signals"]]
        said += [f"    next: {what}" for what in edge["would_change"]]
    said += [f"  {e['timestamp']}  {e['type']:<17} {e['data'].get('case', '')}" for e in found["transitions"]]
    return said


def _asks(action: str) -> str:
    return "" if action == "none" else f", {action}"


def _signal(signal: dict[str, Any]) -> str:
    figures = signal["figures"]
    match signal["signal"]:
        case "heartbeats":
            detail = f"silent for {figures['silent_s']:g} s, phi {figures['phi']:g}"
        case "probes":
            seen = ", ".join(
                f"{b['region']} {b['outcome']} ({b['in_a_row']} in a row, {b['rtt_ms']:g} ms)"
                for b in figures["ballots"]
            )
            detail = f"{figures['basis']}" + (f": {seen}" if seen else "")
        case _:
            detail = f"{figures['left']} of {figures['samples']} left within 10 s"
    return f"{signal['signal']:<10} {signal['says']:<9} {detail}"
