/** A call over WebRTC: give the `Caller` the world that `overWebRtc` makes. */

import { browser } from "../world.js";
import type { World } from "../world.js";
import { RtcSocket } from "./socket.js";
import type { RtcOptions, RtcPorts } from "./socket.js";

export { RtcSocket } from "./socket.js";
export type { RtcOptions, RtcPorts } from "./socket.js";

/** Edges are reached as their grants say: `https://` by an offer, `wss://` by a socket. */
export function overWebRtc(options: RtcOptions, ports?: RtcPorts): World {
  return {
    ...browser,
    open: (url, protocol, opening) => {
      if (!/^https?:/.test(url) || opening === undefined) return browser.open(url, protocol);
      return new RtcSocket(url, protocol, opening, options, ports);
    },
  };
}
