/** Plays the agent, and knows up to where it was heard. */

import type { Frame } from "../ears.js";
import { NOWHERE } from "../messages.js";
import type { Position } from "../messages.js";
import type { Joined } from "./playout.js";
import { PLAYOUT, standsAt } from "./protocol.js";
import type { FromPlayout, Said, ToPlayout } from "./protocol.js";

export interface SpeakerEars {
  /** The agent is heard under another epoch. */
  joined?(what: Joined): void;
  /** The loudest sample of the last 20 ms or so, from 0 to 1. */
  level?(peak: number): void;
}

/** Frames are PCM16 at `rateHz`. The context has the worklet (`loadWorklet`). */
export class Speaker {
  private said: Said = { position: NOWHERE, bufferedMs: 0, playing: false, atS: 0 };
  private readonly node: AudioWorkletNode;

  constructor(
    private readonly context: AudioContext,
    { rateHz, joined, level }: { rateHz: number } & SpeakerEars,
  ) {
    this.node = new AudioWorkletNode(context, PLAYOUT, {
      numberOfInputs: 0,
      outputChannelCount: [1],
      processorOptions: { rateHz },
    });
    this.node.port.onmessage = ({ data }: MessageEvent<FromPlayout>) => {
      if (data.kind === "joined") {
        joined?.(data.joined);
        return;
      }
      this.said = data.said;
      level?.(data.peak);
    };
    this.node.connect(context.destination);
  }

  /** What has left the loudspeaker: what was given to the device, less what the device still holds. */
  get position(): Position {
    const heldMs = (this.context.outputLatency || this.context.baseLatency || 0) * 1_000;
    return standsAt(this.said, this.context.currentTime, heldMs);
  }

  play({ samples, utterance, offset_ms, epoch, filler }: Frame): void {
    const bytes = samples.slice(0, samples.byteLength & ~1);
    const frame = { samples: new Int16Array(bytes.buffer), utterance, offset_ms, epoch, filler };
    this.tell({ kind: "frame", frame }, [bytes.buffer]);
  }

  /** Samples that wait to be played, as of the last word of the audio thread. */
  get bufferedMs(): number {
    return this.said.bufferedMs;
  }

  /** What is buffered is not heard any more. */
  clear(): void {
    this.said = { ...this.said, playing: false };
    this.tell({ kind: "clear" });
  }

  close(): void {
    this.node.port.onmessage = null;
    this.node.disconnect();
  }

  private tell(message: ToPlayout, transfer: Transferable[] = []): void {
    this.node.port.postMessage(message, transfer);
  }
}
