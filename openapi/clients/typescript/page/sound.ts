/** How the audio of the page's call goes: in frames over a socket, or on tracks over WebRTC. The call is the same. */

import { Microphone, Speaker, TrackSpeaker, loadWorklet } from "../src/audio/index.js";
import type { MicrophoneFrame, SpeakerEars } from "../src/audio/index.js";
import type { CallerOptions } from "../src/ears.js";
import { overWebRtc } from "../src/rtc/index.js";

const RATE_HZ = 16_000;

export interface SoundEars extends SpeakerEars {
  /** Of the microphone, 20 ms at a time. */
  said(samples: Uint8Array, peak: number): void;
}

export interface Sound {
  readonly microphone: Microphone;
  /** What a `Caller` needs of it. */
  readonly options: CallerOptions;
  /** Null where the browser keeps that to itself. */
  readonly bufferedMs: number | null;
  close(): void;
}

/** Asks for the microphone. Rejects with what the browser says of it. */
export async function openSound(context: AudioContext, overTracks: boolean, ears: SoundEars): Promise<Sound> {
  await context.resume();
  await loadWorklet(context);
  const heard = ({ samples, peak }: MicrophoneFrame): void => ears.said(new Uint8Array(samples.buffer), peak);
  const microphone = await Microphone.open(context, { rateHz: RATE_HZ, heard });
  return overTracks ? tracks(context, microphone, ears) : frames(context, microphone, ears);
}

function frames(context: AudioContext, microphone: Microphone, ears: SoundEars): Sound {
  const speaker = new Speaker(context, { rateHz: RATE_HZ, ...ears });
  const options: CallerOptions = {
    sampleRate: RATE_HZ,
    played: () => speaker.position,
    audio: (frame) => speaker.play(frame),
    clear: () => speaker.clear(),
  };
  return {
    microphone,
    options,
    get bufferedMs() {
      return speaker.bufferedMs;
    },
    close: () => closeAll(microphone, speaker),
  };
}

function tracks(context: AudioContext, microphone: Microphone, ears: SoundEars): Sound {
  const speaker = new TrackSpeaker(context, ears);
  const world = overWebRtc({ microphone: microphone.track, track: (track, epoch) => speaker.add(track, epoch) });
  return { microphone, options: { world }, bufferedMs: null, close: () => closeAll(microphone, speaker) };
}

function closeAll(...parts: { close(): void }[]): void {
  for (const part of parts) part.close();
}
