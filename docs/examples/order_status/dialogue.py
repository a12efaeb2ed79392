"""What is said when: a small dialogue about the status of an order. Pure: what was heard comes in, a reply goes out.

It remembers one thing, the order that was asked about, and can rebuild it from a conversation that somebody else kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

DIGITS = {
    w: str(i)
    for i, w in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
}
WORDS = {d: w for w, d in DIGITS.items()}
GREETING = "Hello. How can I help you with your order?"
UNKNOWN_ORDER = "I do not know which order you mean. Please tell me the number."
NOT_UNDERSTOOD = "Sorry, I did not understand that. Please say it again."

ORDERS: dict[str, dict[str, str]] = {
    "158": {"status": "shipped", "arrives": "Thursday", "depot": "Dublin"},
    "315": {"status": "left the shop", "arrives": "Monday", "depot": "Hamburg"},
}
NOT_FOUND = "not found"


@dataclass(frozen=True, slots=True)
class ToolCall:
    name: str
    arguments: dict[str, str]


@dataclass(frozen=True, slots=True)
class Reply:
    """`tool`: to be run first; its result then goes to `after_tool`. `hang_up`: the agent ends the call after the text."""

    text: str = ""
    tool: ToolCall | None = None
    hang_up: bool = False


@dataclass(slots=True)
class Memory:
    """The order in question, and what the tool said of it."""

    order: str | None = None
    found: dict[str, str] | None = None


def memory_from(turns: list[dict[str, Any]]) -> Memory:
    """From the conversation as Voxplane kept it: the newest look-up counts, else the newest number the caller has said."""
    memory = Memory()
    for turn in turns:
        if turn.get("role") == "tool" and turn.get("name") == "lookup_order":
            memory.order = str((turn.get("arguments") or {}).get("order", "")) or memory.order
            result = turn.get("result")
            memory.found = result if isinstance(result, dict) else memory.found
        elif turn.get("role") == "caller" and (number := order_in(str(turn.get("text", "")))):
            memory.order = number
    return memory


def unanswered(turns: list[dict[str, Any]]) -> str | None:
    """What the caller said last, where nobody has answered it."""
    if turns and turns[-1].get("role") == "caller":
        return str(turns[-1].get("text", "")) or None
    return None


def order_in(text: str) -> str | None:
    digits = [DIGITS[w] for w in text.split() if w in DIGITS]
    return "".join(digits) if len(digits) == 3 else None


def spoken(order: str) -> str:
    return " ".join(WORDS[d] for d in order)


def respond(memory: Memory, heard: str) -> Reply:
    if "goodbye" in heard:
        return Reply("You are welcome. Goodbye.")
    if "status of order" in heard and (number := order_in(heard)):
        memory.order, memory.found = number, None
        return Reply(tool=ToolCall("lookup_order", {"order": number}))
    if heard.startswith(("which order", "what was my order")):
        return Reply(f"You asked about order {spoken(memory.order)}." if memory.order else UNKNOWN_ORDER)
    if heard.startswith(("when will", "where is")):
        if memory.order is None:
            return Reply(UNKNOWN_ORDER)
        if memory.found is None:
            return Reply(tool=ToolCall("lookup_order", {"order": memory.order}))
        if memory.found["status"] == NOT_FOUND:
            return after_tool(memory, memory.found)
        if heard.startswith("when"):
            return Reply(f"Order {spoken(memory.order)} arrives on {memory.found['arrives']}.")
        return Reply(f"Order {spoken(memory.order)} is at the depot in {memory.found['depot']}.")
    return Reply(NOT_UNDERSTOOD)


def look_up(order: str) -> dict[str, str]:
    """The tool itself."""
    return ORDERS.get(order, {"status": NOT_FOUND})


def after_tool(memory: Memory, result: dict[str, str]) -> Reply:
    memory.found = result
    number = spoken(memory.order or "")
    if result["status"] == NOT_FOUND:
        return Reply(f"I find no order {number}.")
    return Reply(
        f"Order {number} has {result['status']}. It arrives on {result['arrives']}. "
        f"The parcel is at the depot in {result['depot']}, and a driver will bring it between nine and noon. "
        "You will get a message with the exact time in the morning, and you can change the address until then."
    )
