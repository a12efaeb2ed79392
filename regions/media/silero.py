"""Silero's detector on onnxruntime, for all calls of an edge together: a batch of windows at a time, off the pacer's path.

Decides what is run when and on which thread; what an answer means is `Opinion`'s. A window is 32 ms at 8 kHz, the model's native
lower rate (github.com/snakers4/silero-vad). Each call has a slot: the model's state, and the end of the window before. Windows are
gathered and answers spread on the event loop, every `EVERY_S` while there are any; the model runs on a thread of its own, one
thread, without the interpreter's lock, so that a frame that is due goes out meanwhile.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import structlog

from regions.media.codecs import RATE_HZ
from regions.media.opinion import Opinion
from regions.media.turns import Sound
from regions.media.voice_activity import VoiceDetector, VoiceGate

log = structlog.get_logger()

WINDOW_SAMPLES, CONTEXT_SAMPLES = 256, 32
WINDOW_BYTES = WINDOW_SAMPLES * 2
STATE_SIZE = 128
EVERY_S = 0.016
WAITING_MAX = 3
"""Windows of one call; where the machine is too slow for more, the oldest go unanswered."""
FAILED_PAUSE_S = 1.0
MODEL = "silero_vad.onnx"


class Unavailable(Exception):
    """The model cannot be run here; the text says why."""


class Model:
    """Raises `Unavailable`. Not safe for two threads at once."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("silero_vad")
        if spec is None or not spec.submodule_search_locations:
            raise Unavailable("the package silero-vad is not installed")
        path = Path(next(iter(spec.submodule_search_locations))) / "data" / MODEL
        if not path.is_file():
            raise Unavailable(f"silero-vad has no {MODEL}")
        # It reads this once, when it is loaded. Without it the runtime reports its use to its vendor, and keeps an id of this user.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        try:
            self.numpy: Any = importlib.import_module("numpy")
            onnx: Any = importlib.import_module("onnxruntime")
        except ImportError as error:
            raise Unavailable(f"the package {error.name} is not installed") from None
        options = onnx.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 3
        try:
            self._session = onnx.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001  whatever the runtime raises for a file it cannot use
            raise Unavailable(f"{MODEL} cannot be loaded: {type(error).__name__}") from None
        self._rate = self.numpy.array(RATE_HZ, dtype=self.numpy.int64)

    def run(self, windows: Any, state: Any) -> tuple[Any, Any]:
        """`windows`: float32 [n, context and window]; `state`: float32 [2, n, 128]. Probabilities [n], and the state after."""
        found, after = self._session.run(None, {"input": windows, "state": state, "sr": self._rate})
        return found[:, 0], after


class SileroVoice:
    """One call's `VoiceDetector`."""

    __slots__ = ("_batch", "_gate", "_opinion", "_pcm", "awakenings", "slot", "waiting")

    def __init__(self, batch: Silero, slot: int) -> None:
        self._batch = batch
        self._gate = VoiceGate()
        self._opinion = Opinion()
        self._pcm = bytearray()
        self.slot = slot
        self.awakenings = 0
        self.waiting: deque[bytes] = deque(maxlen=WAITING_MAX)

    def feed(self, pcm: bytes) -> Sound:
        heard = self._gate.feed(pcm)
        opinion = self._opinion
        was_awake = opinion.awake
        opinion.gate(heard.voice)
        if opinion.awake:
            if not was_awake:
                self._wake()
            self._pcm += pcm
            while len(self._pcm) >= WINDOW_BYTES:
                self.waiting.append(bytes(self._pcm[:WINDOW_BYTES]))
                del self._pcm[:WINDOW_BYTES]
                self._batch.ready(self)
        voice, probability = opinion.voice(heard.voice)
        return Sound(voice, probability, heard.rms)

    def answer(self, probability: float) -> None:
        self._opinion.window(probability)

    def close(self) -> None:
        self.waiting.clear()
        self._batch.release(self)

    def _wake(self) -> None:
        """As if nothing had been heard before: what is under way is not answered."""
        self.awakenings += 1
        self._pcm.clear()
        self.waiting.clear()
        self._batch.forget(self.slot)


class Silero:
    """The calls of an edge. `start` and `stop` on its event loop."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._numpy = model.numpy
        self._free: list[int] = []
        self._voices: dict[int, SileroVoice] = {}
        self._ready: dict[int, SileroVoice] = {}
        self._state = self._numpy.zeros((2, 0, STATE_SIZE), dtype=self._numpy.float32)
        self._context = self._numpy.zeros((0, CONTEXT_SAMPLES), dtype=self._numpy.float32)
        self._pool: ThreadPoolExecutor | None = None
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.windows = 0
        """Answered since the start."""

    def start(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="voice")
        self._task = asyncio.create_task(self._run(), name="voice")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    def voice(self) -> VoiceDetector:
        """One for each call."""
        if not self._free:
            self._grow()
        voice = SileroVoice(self, self._free.pop())
        self._voices[voice.slot] = voice
        return voice

    def ready(self, voice: SileroVoice) -> None:
        self._ready[voice.slot] = voice
        self._wanted.set()

    def release(self, voice: SileroVoice) -> None:
        if self._voices.get(voice.slot) is voice:
            del self._voices[voice.slot]
            self._ready.pop(voice.slot, None)
            self._free.append(voice.slot)

    def forget(self, slot: int) -> None:
        self._state[:, slot] = 0
        self._context[slot] = 0

    def _grow(self) -> None:
        """Twice as many calls."""
        numpy, before = self._numpy, len(self._context)
        more = max(16, before)
        self._state = numpy.concatenate(
            [self._state, numpy.zeros((2, more, STATE_SIZE), dtype=numpy.float32)], axis=1
        )
        self._context = numpy.concatenate(
            [self._context, numpy.zeros((more, CONTEXT_SAMPLES), dtype=numpy.float32)]
        )
        self._free.extend(range(before + more - 1, before - 1, -1))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wanted.wait()
            await asyncio.sleep(EVERY_S)
            try:
                await self.step(loop)
            except Exception:
                # what goes unanswered is heard by the gate
                log.exception("voice.failed")
                await asyncio.sleep(FAILED_PAUSE_S)

    async def step(self, loop: asyncio.AbstractEventLoop) -> None:
        """The oldest window of each call that has one."""
        voices = [
            (voice, voice.awakenings, voice.waiting.popleft())
            for voice in self._ready.values()
            if voice.waiting
        ]
        self._ready = {slot: voice for slot, voice in self._ready.items() if voice.waiting}
        if not self._ready:
            self._wanted.clear()
        if not voices:
            return
        numpy = self._numpy
        slots = [voice.slot for voice, _, _ in voices]
        pcm = numpy.frombuffer(b"".join(window for _, _, window in voices), dtype="<i2")
        samples = pcm.reshape(len(voices), WINDOW_SAMPLES).astype(numpy.float32) / 32_768
        windows = numpy.concatenate([self._context[slots], samples], axis=1)
        found, state = await loop.run_in_executor(self._pool, self._model.run, windows, self._state[:, slots])
        for i, (voice, awakenings, _) in enumerate(voices):
            if voice.awakenings == awakenings and self._voices.get(voice.slot) is voice:
                self._state[:, voice.slot] = state[:, i]
                self._context[voice.slot] = samples[i, -CONTEXT_SAMPLES:]
                voice.answer(float(found[i]))
        self.windows += len(voices)
