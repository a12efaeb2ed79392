"""What an edge writes of one exchange in a conversation: nine events, five of them with content. Pure.

The types, their fields and their sizes are those of `regions.edge.session` with a backend that speaks the text extension.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from regions.wire.events import EdgeEvent

QUESTION = "Hello, could you tell me where my order {0} is right now, please?"
ANSWER = "Your order {0} has left the warehouse this morning and will be with you tomorrow before noon. Anything else?"


def exchange(number: int) -> list[tuple[str, dict[str, object]]]:
    """The types and data of the exchange `number` (from 0) of a call."""
    order, at_ms, utterance = 1_000 + number, 15_000 * number, number + 1
    question, answer = QUESTION.format(order), ANSWER.format(order)
    tool = f"call-{order}"
    return [
        ("speech.started", {"offset_ms": at_ms, "barge_in": False}),
        ("speech.stopped", {"offset_ms": at_ms + 4_200}),
        ("transcript.final", {"role": "caller", "text": question}),
        ("turn.ended", {"role": "caller", "text": question}),
        ("tool.called", {"id": tool, "name": "order_status", "arguments": {"order": order}}),
        ("tool.result", {"id": tool, "name": "order_status", "result": {"state": "shipped", "eta": "tomorrow"}}),
        ("playback.started", {"utterance": utterance}),
        ("playback.done", {"utterance": utterance, "length_ms": 6_400}),
        ("turn.ended", {"role": "agent", "text": answer, "utterance": utterance}),
    ]  # fmt: skip


def written(number: int, *, at_ms: int, new_event_id: Callable[[], str]) -> list[EdgeEvent]:
    """The same as the edge numbers them: `n` follows the exchanges before."""
    said = exchange(number)
    return [
        EdgeEvent(
            n=number * len(said) + i,
            id=new_event_id(),
            type=type_,
            at_ms=at_ms,
            data=msgspec.Raw(msgspec.json.encode(data)),
        )
        for i, (type_, data) in enumerate(said, 1)
    ]
