"""``voxplane call``: a caller made of a WAV file, for those who have a bot and want to hear it."""

from __future__ import annotations

import asyncio
import time
import wave
from pathlib import Path

from app.local.process import EngineError
from voxplane import AsyncCaller, AsyncClient, probe_regions

RATES = (8_000, 16_000, 24_000, 48_000)
FRAME_S = 0.02


async def place_call(
    client: AsyncClient, *, agent: str, dialect: str, wav: Path, out: Path | None, listen_s: float
) -> None:
    """Says the file in real time, then listens; writes what was heard, and prints what happened."""
    rate, samples = read_wav(wav)
    async with client:
        latencies = await probe_regions(await client.regions())
        call = await client.create_call({"url": agent, "dialect": dialect}, latencies=latencies)
        print(f"{call['id']} in {call['region']} ({call['placement']['protection']} protection)", flush=True)
        heard: list[bytes] = []
        async with AsyncCaller(call["ticket"], sample_rate=rate, client=client) as caller:
            listening = asyncio.create_task(_listen(caller, heard))
            await say(caller, samples, rate)
            await say(caller, b"\0" * int(listen_s * rate) * 2, rate)
            await caller.hangup()
            await listening
            if caller.end_reason and caller.end_reason != "caller_hung_up":
                print(f"the call ended: {caller.end_reason}")
        conversation = await client.conversation(call["id"])
    for turn in conversation["turns"]:
        print(f"  {turn['role']:>6}: {turn.get('text') or turn.get('name', '')}")
    print(f"heard {sum(map(len, heard)) / 2 / rate:.1f} s of audio")
    if out is not None:
        with wave.open(str(out), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(b"".join(heard))
        print(f"written to {out}")


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
    """(rate, PCM16 mono); raises `EngineError` for a file of another kind."""
    try:
        with wave.open(str(path), "rb") as file:
            if file.getnchannels() != 1 or file.getsampwidth() != 2 or file.getframerate() not in RATES:
                raise EngineError(
                    "bad_wav",
                    f"{path} is not mono PCM16 at 8, 16, 24 or 48 kHz.",
                    "Convert it: ffmpeg -i in.wav -ac 1 -ar 16000 -c:a pcm_s16le out.wav",
                )
            return file.getframerate(), file.readframes(file.getnframes())
    except (OSError, wave.Error, EOFError) as error:
        raise EngineError(
            "bad_wav", f"{path} cannot be read ({error}).", "Give a mono PCM16 WAV file."
        ) from None
