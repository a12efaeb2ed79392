/** Plays the tracks of a call over WebRTC: the newest edge that has something to say, and none before it. */

import { LISTEN } from "./protocol.js";
import type { FromListen } from "./protocol.js";
import type { SpeakerEars } from "./speaker.js";
import { Splice } from "./splice.js";

interface Playing {
  readonly epoch: number;
  readonly track: MediaStreamTrack;
  stop(): void;
}

/** The context has the worklet (`loadWorklet`). */
export class TrackSpeaker {
  private readonly splice = new Splice();
  private readonly playing = new Set<Playing>();

  constructor(
    private readonly context: AudioContext,
    private readonly ears: SpeakerEars = {},
  ) {}

  /** Of the edge that owns the call at `epoch`, or may. */
  add(track: MediaStreamTrack, epoch: number): void {
    const stream = new MediaStream([track]);
    // Chromium gives a remote track to nobody before an element plays it
    const element = new Audio();
    element.muted = true;
    element.srcObject = stream;
    element.play().catch(() => undefined);
    const source = this.context.createMediaStreamSource(stream);
    const node = new AudioWorkletNode(this.context, LISTEN, { outputChannelCount: [1] });
    const one: Playing = {
      epoch,
      track,
      stop: () => {
        node.port.onmessage = null;
        source.disconnect();
        node.disconnect();
        element.srcObject = null;
        this.playing.delete(one);
      },
    };
    node.port.onmessage = ({ data }: MessageEvent<FromListen>) => this.heard(epoch, data);
    source.connect(node).connect(this.context.destination);
    this.playing.add(one);
  }

  close(): void {
    for (const one of [...this.playing]) one.stop();
  }

  private heard(epoch: number, { peak, sound }: FromListen): void {
    if (sound !== null) {
      const joined = this.splice.sound(epoch, sound.fromS, sound.untilS);
      if (joined !== null) {
        for (const one of [...this.playing]) if (one.epoch < epoch) one.stop();
        this.ears.joined?.(joined);
      }
    }
    if (epoch === this.splice.epoch || this.splice.epoch === null) this.ears.level?.(peak);
  }
}
