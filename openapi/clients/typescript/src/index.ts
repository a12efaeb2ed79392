/** The client of Voxplane for browsers: `voxplane.media.v1`, see docs/reference/media.md. */

export { Caller } from "./caller.js";
export type { CallState, CallerEars, CallerOptions, Frame, Notice } from "./ears.js";
export { CallLost, CallOver, CallRefused, WrongWorld } from "./errors.js";
export type { Gap } from "./hearing.js";
export { MEDIA_PATH, SUBPROTOCOL, readAudio, readMessage, writeAudio } from "./messages.js";
export type { Audio, Encoding, FromEdge, Mode, Position, SampleRate } from "./messages.js";
export { Overlap } from "./overlap.js";
export { PROBE_PROTOCOL, chosen, probeRegions } from "./probing.js";
export type { Latency, ProbeOptions, Region } from "./probing.js";
export { NotATicket, isOverWebRtc, readTicket } from "./ticket.js";
export type { Grant, TicketClaims } from "./ticket.js";
export { overWebRtc } from "./rtc/index.js";
export type { RtcOptions, RtcPorts } from "./rtc/index.js";
export type { Renew } from "./tickets.js";
export { Watch } from "./watch.js";
export type { Action, TakeReason, WatchState } from "./watch.js";
export type { Opening, Socket, World } from "./world.js";
