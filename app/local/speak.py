"""``voxplane call``: a caller made of a WAV file, for those who have a bot and want to hear it."""

from __future__ import annotations

import asyncio
import sys
import time
import wave
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from app.local.process import EngineError
from voxplane import AsyncCaller, AsyncClient

RATES = (8_000, 16_000, 24_000, 48_000)
FRAME_S = 0.02
CONVERT = "Give a 16-bit PCM WAV file; to make one: ffmpeg -i in.wav -ac 1 -ar 16000 -c:a pcm_s16le out.wav"
GOOD_ENDINGS = ("caller_hung_up", "agent_hung_up")
ENDINGS = {
    "agent_unreachable": "Is the backend running, and listening where --agent says?",
    "agent_lost": "The backend broke the connection off: see its own log.",
}


async def place_call(
    client: AsyncClient, *, agent: str, dialect: str, wav: Path, out: Path | None, listen_s: float
) -> None:
    """Says the file in real time, then listens; writes what was heard, and prints what happened. Raises `EngineError`."""
    rate, samples = read_wav(wav)
    with ExitStack() as files:
        file = files.enter_context(_written(out, rate)) if out is not None else None
        async with client:
            latencies = await client.probe()
            call = await client.create_call({"url": agent, "dialect": dialect}, latencies=latencies)
            print(f"{call['id']} in {call['region']} ({call['placement']['protection']} protection)")
            seconds = len(samples) / 2 / rate
            print(f"saying {wav} ({seconds:.1f} s), then listening for {listen_s:g} s", flush=True)
            heard: list[bytes] = []
            async with AsyncCaller(call["ticket"], sample_rate=rate, client=client) as caller:
                listening = asyncio.create_task(_listen(caller, heard))
                await say(caller, samples + b"\0" * int(listen_s * rate) * 2, rate)
                await caller.hangup()
            await listening
            conversation = await client.conversation(call["id"])
        for turn in conversation["turns"]:
            print(f"  {turn['role']:>6}: {said(turn)}")
        print(f"heard {sum(map(len, heard)) / 2 / rate:.1f} s of audio")
        if file is not None:
            file.writeframes(b"".join(heard))
            print(f"written to {out}")
    if caller.end_reason not in GOOD_ENDINGS:
        reason = caller.end_reason or "the edges are not there any more"
        raise EngineError("ended", f"The call ended early: {reason}.", ENDINGS.get(reason, ""))


def said(turn: dict[str, Any]) -> str:
    """A turn's text, a tool's name, or why there is neither."""
    if text := turn.get("text") or turn.get("name"):
        return str(text)
    return "(cut before any of it was heard)" if turn.get("interrupted") else "(without a text)"


async def say(caller: AsyncCaller, samples: bytes, rate: int) -> None:
    """Sends PCM16 in real time, 20 ms at a time; stops early when the call is over."""
    size = int(rate * FRAME_S) * 2
    due = time.monotonic()
    for i in range(0, len(samples), size):
        if caller.over:
            return
        await caller.send(samples[i : i + size])
        due += FRAME_S
        await asyncio.sleep(max(0.0, due - time.monotonic()))


async def _listen(caller: AsyncCaller, heard: list[bytes]) -> None:
    async for frame in caller.frames():
        heard.append(frame.samples)  # noqa: PERF401  what was heard so far must be there at any time


def read_wav(path: Path) -> tuple[int, bytes]:
    """(rate, PCM16 mono), two channels mixed to one; raises `EngineError` for a file of another kind."""
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            samples = file.readframes(file.getnframes())
    except (OSError, wave.Error, EOFError, RuntimeError) as error:
        # a chunk that says it is longer than the file is a RuntimeError without a word
        reason = error.strerror if isinstance(error, OSError) else f"{error}" or "it is broken off"
        raise EngineError("bad_wav", f"{path} cannot be read: {reason}.", CONVERT) from None
    if channels not in (1, 2) or width != 2 or rate not in RATES:
        kind = f"{channels} channels of {8 * width} bits at {rate} Hz"
        raise EngineError(
            "bad_wav",
            f"{path} has {kind}, not 1 or 2 of 16 bits at 8000, 16000, 24000 or 48000 Hz.",
            CONVERT,
        )
    frames = len(samples) // (2 * channels)
    if frames == 0:
        raise EngineError("bad_wav", f"{path} holds no audio.", CONVERT)
    samples = samples[: frames * 2 * channels]
    return rate, _mixed(samples) if channels == 2 else samples


def _mixed(samples: bytes) -> bytes:
    both = array("h", samples)
    if sys.byteorder == "big":
        both.byteswap()
    one = array("h", ((left + right) // 2 for left, right in zip(both[::2], both[1::2], strict=True)))
    if sys.byteorder == "big":
        one.byteswap()
    return one.tobytes()


@contextmanager
def _written(path: Path, rate: int) -> Iterator[wave.Wave_write]:
    """A mono PCM16 file, opened before the call is placed; raises `EngineError`."""
    try:
        raw = path.open("wb")
    except OSError as error:
        raise EngineError(
            "bad_out",
            f"{path} cannot be written: {error.strerror}.",
            "Name another file with --out, in a folder that is there.",
        ) from None
    with raw, wave.open(raw) as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        yield file
