"""The offline example's ear and its dialogue, without a call around them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "order_status"
PREAMBLE = """
import json
from dialogue import Memory, after_tool, look_up, memory_from, respond
from regions.media.codecs import ULAW_8K, Converter, Format
from speech_to_text import Final, Recognizer, make_decoder
from synthesis import Synthesizer

WIDE = Format("pcm16", 16_000)
VOICE = Synthesizer()

def line(text, lead_ms):
    # as it comes from an edge: through 8 kHz and mu-law, a frame at a time
    down, up = Converter(WIDE, ULAW_8K), Converter(ULAW_8K, WIDE)
    pcm = bytes(32 * lead_ms) + VOICE.speak(text, voice="en-gb", rate_hz=16_000).pcm + bytes(32_000)
    wide = b"".join(up(down(pcm[i : i + 640])) for i in range(0, len(pcm), 640))
    return [wide[i : i + 640] for i in range(0, len(wide) - 639, 640)]

def heard(decoder, frames):
    recognizer = Recognizer(decoder, 16_000)
    return [found.text for frame in frames for found in recognizer.hear(frame) if isinstance(found, Final)]
"""
"""In a process of its own: its modules have names that others have, too."""


def run(program: str) -> Any:
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PREAMBLE + dedent(program)],
        env={"PYTHONPATH": f"{EXAMPLE}:{EXAMPLE.parents[2]}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def test_a_caller_who_speaks_at_once_is_understood_and_so_is_the_next() -> None:
    asks = "what is the status of order one five eight"
    found = run(f"""
        found = []
        for lead_ms in (0, 20, 50, 500):
            decoder, frames = make_decoder(), line("{asks}", lead_ms)
            found += [heard(decoder, frames) for _ in range(4)]
        print(json.dumps(found))
    """)
    assert found == [[asks]] * 16


def test_an_order_that_is_not_there_is_said_to_be_none() -> None:
    found = run("""
        memory = Memory()
        tool = respond(memory, "what is the status of order one five nine").tool
        said = [after_tool(memory, look_up(tool.arguments["order"])).text]
        said += [respond(memory, heard).text for heard in ("when will it arrive", "where is it now")]
        print(json.dumps(said))
    """)
    assert found == ["I find no order one five nine."] * 3
