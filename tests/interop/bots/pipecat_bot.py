"""A Pipecat bot on its Twilio or Exotel serializer, which the caller leads by keys.

1: say again what was heard. 2: say a long tone. 3: interrupt. 4: hang up, as the framework does at the end of a pipeline.
Arguments: port, base URL of the REST API, token. The account is the one that `start` names.
"""

import array
import math
import sys

import uvicorn
from fastapi import FastAPI, WebSocket
from pipecat.frames.frames import (
    CancelFrame,
    EndWorkerFrame,
    Frame,
    InputAudioRawFrame,
    InputDTMFFrame,
    OutputAudioRawFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.runner.utils import parse_telephony_websocket
from pipecat.serializers.exotel import ExotelFrameSerializer
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner

PORT, BASE_URL, TOKEN = int(sys.argv[1]), sys.argv[2], sys.argv[3]
RATE_HZ, TONE_HZ, TONE_S, LOUD = 8_000, 700, 8, 1_000
app = FastAPI()


class Led(FrameProcessor):
    def __init__(self) -> None:
        super().__init__()
        self.heard = bytearray()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            if max(map(abs, array.array("h", frame.audio))) > LOUD:
                self.heard += frame.audio
        elif isinstance(frame, InputDTMFFrame):
            await self.led(frame.button.value)
        else:
            await self.push_frame(frame, direction)

    async def led(self, key: str) -> None:
        if key == "1":
            await self.say(bytes(self.heard))
        elif key == "2":
            steps = range(RATE_HZ * TONE_S)
            await self.say(
                array.array(
                    "h", [round(8_000 * math.sin(math.tau * TONE_HZ * i / RATE_HZ)) for i in steps]
                ).tobytes()
            )
        elif key == "3":
            await self.broadcast_interruption()
        elif key == "4":
            await self.push_frame(EndWorkerFrame(), FrameDirection.UPSTREAM)

    async def say(self, samples: bytes) -> None:
        await self.push_frame(OutputAudioRawFrame(audio=samples, sample_rate=RATE_HZ, num_channels=1))


@app.websocket("/ws")
async def bot(websocket: WebSocket) -> None:
    await websocket.accept()
    provider, call = await parse_telephony_websocket(websocket)
    print(provider, flush=True)
    if provider == "exotel":
        serializer = ExotelFrameSerializer(stream_sid=call.stream_id, call_sid=call.call_id)
    else:
        serializer = TwilioFrameSerializer(
            stream_sid=call.stream_id,
            call_sid=call.call_id,
            account_sid=ACCOUNTS[0],
            auth_token=TOKEN,
            base_url=BASE_URL,
        )
    transport = FastAPIWebsocketTransport(
        websocket=websocket,
        params=FastAPIWebsocketParams(audio_in_enabled=True, audio_out_enabled=True, serializer=serializer),
    )
    worker = PipelineWorker(
        Pipeline([transport.input(), Led(), transport.output()]),
        params=PipelineParams(audio_in_sample_rate=RATE_HZ, audio_out_sample_rate=RATE_HZ),
    )

    @transport.event_handler("on_client_disconnected")
    async def gone(transport: FastAPIWebsocketTransport, client: WebSocket) -> None:
        # this transport gives its serializer nothing once the socket has closed; others do, and it then hangs up
        await serializer.serialize(CancelFrame())
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


ACCOUNTS = sys.argv[4:]

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning")
