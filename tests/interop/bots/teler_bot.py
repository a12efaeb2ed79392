"""Teler's own stream connector between the call and a remote WebSocket. Arguments: port, remote URL.

It hangs up as the connector is meant to: a handler says `STOP`, here at the remote's `bye`. (Where the remote just closes, the
server around the connector drops the call's socket without a close frame, which is a crash: the backend is dialled again.)
"""

import json
import sys

import uvicorn
from fastapi import FastAPI, WebSocket
from teler.streams import StreamConnector, StreamOp

app = FastAPI()


async def from_remote(message: str) -> tuple[str, StreamOp]:
    return message, StreamOp.STOP if json.loads(message)["type"] == "bye" else StreamOp.RELAY


@app.websocket("/ws")
async def call(websocket: WebSocket) -> None:
    await websocket.accept()
    await StreamConnector(remote_url=sys.argv[2], remote_stream_handler=from_remote).bridge_stream(websocket)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
