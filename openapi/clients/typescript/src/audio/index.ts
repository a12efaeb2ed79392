/** A microphone and a loudspeaker for a call, by AudioWorklet. */

export { FRAME_MS } from "./framer.js";
export type { MicrophoneFrame } from "./framer.js";
export { Microphone } from "./microphone.js";
export { Playout } from "./playout.js";
export type { Joined, PlayoutFrame } from "./playout.js";
export { Resampler } from "./resampler.js";
export { Speaker } from "./speaker.js";
export type { SpeakerEars } from "./speaker.js";
export { Splice } from "./splice.js";
export { TrackSpeaker } from "./track_speaker.js";

/** Once for a context, before a `Microphone` or a `Speaker`. */
export async function loadWorklet(context: AudioContext): Promise<void> {
  await context.audioWorklet.addModule(new URL("./worklet.js", import.meta.url));
}
