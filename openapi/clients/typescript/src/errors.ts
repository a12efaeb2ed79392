/** What can become of a call that no edge carries. */

/** No edge takes it: the last refusal, as it came. `code` is stable; see docs/reference/media.md. */
export class CallRefused extends Error {
  constructor(
    readonly code: string,
    readonly detail: string,
    readonly fix: string,
  ) {
    super([`${code}: ${detail}`, fix].filter((part) => part !== "").join(". "));
    this.name = "CallRefused";
  }
}

/** A ticket whose edges are reached over WebRTC, given to a caller that has sockets alone. */
export class WrongWorld extends Error {
  readonly code = "wrong_world";
  constructor() {
    super("this call is one over WebRTC: give the caller `world: overWebRtc({ microphone, track })`");
    this.name = "WrongWorld";
  }
}

/** Nobody answers. */
export class CallLost extends Error {
  readonly code = "call_lost";
  constructor() {
    super("no edge answered: is the deployment there, and may this page open WebSockets to it?");
    this.name = "CallLost";
  }
}

/** Thrown by `renew` to say that no ticket will ever be had: the call has ended. */
export class CallOver extends Error {
  readonly code = "call_over";
  constructor() {
    super("the call has ended");
    this.name = "CallOver";
  }
}
