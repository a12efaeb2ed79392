/** The microphone as the call wants it: PCM16, mono, 20 ms at a time. */

import type { MicrophoneFrame } from "./framer.js";
import { CAPTURE } from "./protocol.js";

export class Microphone {
  private constructor(
    private readonly stream: MediaStream,
    private readonly source: MediaStreamAudioSourceNode,
    private readonly node: AudioWorkletNode,
  ) {}

  /**
   * Asks for the microphone; `heard` gets every frame from then on. The context has the worklet (`loadWorklet`). Rejects with the
   * browser's `NotAllowedError` or `NotFoundError`; where the page is no secure context there are no microphones at all.
   */
  static async open(
    context: AudioContext,
    { rateHz, heard }: { rateHz: number; heard: (frame: MicrophoneFrame) => void },
  ): Promise<Microphone> {
    const audio = { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true };
    const stream = await navigator.mediaDevices.getUserMedia({ audio });
    const source = context.createMediaStreamSource(stream);
    const node = new AudioWorkletNode(context, CAPTURE, {
      numberOfOutputs: 0,
      channelCount: 1,
      channelCountMode: "explicit",
      processorOptions: { rateHz },
    });
    node.port.onmessage = ({ data }: MessageEvent<MicrophoneFrame>) => heard(data);
    source.connect(node);
    return new Microphone(stream, source, node);
  }

  /** For a call over WebRTC. */
  get track(): MediaStreamTrack {
    const [track] = this.stream.getAudioTracks();
    if (track === undefined) throw new Error("a microphone has a track");
    return track;
  }

  /** Frames go on while it is muted: of silence. */
  get muted(): boolean {
    return this.stream.getAudioTracks().every(({ enabled }) => !enabled);
  }

  set muted(muted: boolean) {
    for (const track of this.stream.getAudioTracks()) track.enabled = !muted;
  }

  close(): void {
    this.node.port.onmessage = null;
    this.source.disconnect();
    for (const track of this.stream.getTracks()) track.stop();
  }
}
