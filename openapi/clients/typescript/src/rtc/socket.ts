/**
 * A connection to an edge over WebRTC, which looks like a socket: control on a data channel, audio on a track each way.
 *
 * The offer is posted at once, and what addresses are found afterwards follow it: the edge's stand in its answer, so that the
 * first packets find their way meanwhile. Whatever the edge refuses the offer with comes as its `refused`. See
 * docs/reference/webrtc.md.
 */

import type { Opening, Socket } from "../world.js";

/** Of a page; a test gives others. */
export interface RtcPorts {
  readonly peer: (configuration: RTCConfiguration) => RTCPeerConnection;
  readonly fetch: (url: string, init: RequestInit) => Promise<Response>;
}

export interface RtcOptions {
  /** What the edges hear. It belongs to whoever gave it, and is not stopped. */
  readonly microphone: MediaStreamTrack;
  /** The agent, as an edge sends it that owns the call at `epoch`, or may. It ends with its connection. */
  readonly track: (track: MediaStreamTrack, epoch: number) => void;
  /** STUN or TURN for the page's side; none is asked where it is not given. */
  readonly iceServers?: RTCIceServer[];
}

const page: RtcPorts = {
  peer: (configuration) => new RTCPeerConnection(configuration),
  fetch: (url, init) => fetch(url, init),
};

export class RtcSocket implements Socket {
  binaryType: BinaryType = "arraybuffer";
  readonly onTrack = true;
  onopen: ((event: Event) => void) | null = null;
  onmessage: ((event: MessageEvent) => void) | null = null;
  onclose: ((event: CloseEvent) => void) | null = null;
  onerror: ((event: Event) => void) | null = null;

  private readonly pc: RTCPeerConnection;
  private readonly channel: RTCDataChannel;
  private readonly candidates: RTCIceCandidate[] = [];
  private session: URL | null = null;
  private over = false;

  constructor(
    private readonly url: string,
    protocol: string,
    { ticket, epoch }: Opening,
    { microphone, track, iceServers = [] }: RtcOptions,
    private readonly ports: RtcPorts = page,
  ) {
    const pc = (this.pc = ports.peer({ iceServers, bundlePolicy: "max-bundle" }));
    this.channel = pc.createDataChannel(protocol);
    this.channel.onopen = (event) => this.onopen?.(event);
    this.channel.onmessage = (event) => this.onmessage?.(event);
    this.channel.onclose = () => this.end();
    pc.onconnectionstatechange = () => {
      if (pc.connectionState === "failed" || pc.connectionState === "closed") this.end();
    };
    pc.ontrack = (event) => track(event.track, epoch);
    pc.onicecandidate = ({ candidate }) => {
      if (candidate !== null && candidate.candidate !== "") this.candidates.push(candidate);
      void this.trickle();
    };
    pc.addTransceiver(microphone, { direction: "sendrecv" });
    this.offer(ticket).catch(() => this.end());
  }

  get bufferedAmount(): number {
    return this.channel.bufferedAmount;
  }

  send(data: string | Uint8Array<ArrayBuffer>): void {
    // the channel may have closed, and not said so yet
    if (typeof data === "string" && this.channel.readyState === "open") this.channel.send(data);
  }

  async packets(): Promise<number | null> {
    let count: number | null = null;
    for (const report of (await this.pc.getStats()).values() as Iterable<Record<string, unknown>>) {
      if (report["type"] === "inbound-rtp" && report["kind"] === "audio") count = report["packetsReceived"] as number;
    }
    return count;
  }

  /** Leaves without a word: to hang up is a message. */
  close(): void {
    if (this.over) return;
    this.over = true;
    this.pc.close();
  }

  private async offer(ticket: string): Promise<void> {
    await this.pc.setLocalDescription();
    const answer = await this.ports.fetch(this.url, {
      method: "POST",
      headers: { Authorization: `Bearer ${ticket}`, "Content-Type": "application/sdp" },
      body: this.pc.localDescription?.sdp ?? "",
      credentials: "omit",
    });
    if (this.over) return;
    if (answer.status !== 201) {
      await this.refused(answer);
      return;
    }
    const location = answer.headers.get("Location");
    this.session = location === null ? null : new URL(location, this.url);
    const sdp = await answer.text();
    if (this.over) return;
    await this.pc.setRemoteDescription({ type: "answer", sdp });
    await this.trickle();
  }

  /** An edge that is full, or speaks no WebRTC, says nothing about the others. */
  private async refused(answer: Response): Promise<void> {
    const problem = (await answer.json().catch(() => ({}))) as Record<string, unknown>;
    const { code = `http_${answer.status}`, detail = "the edge does not take the offer", fix = "" } = problem;
    // an earlier life of an edge is none of this one's, and the others may be as they were
    const next_url = answer.status >= 500 || code === "wrong_edge" ? this.url : null;
    if (!this.over) this.onmessage?.({ data: JSON.stringify({ type: "refused", code, detail, fix, next_url }) } as MessageEvent);
    this.end();
  }

  /** Sends what has been found since; once the session has a name. */
  private async trickle(): Promise<void> {
    const found = this.session === null ? [] : this.candidates.splice(0);
    const [first] = found;
    if (this.session === null || first === undefined || this.over) return;
    const lines = [
      ...(first.usernameFragment === null ? [] : [`a=ice-ufrag:${first.usernameFragment}`]),
      "m=audio 9 UDP/TLS/RTP/SAVPF 0",
      `a=mid:${first.sdpMid ?? "0"}`,
      ...found.map(({ candidate }) => `a=${candidate}`),
    ];
    const headers = { "Content-Type": "application/trickle-ice-sdpfrag" };
    const body = lines.map((line) => `${line}\r\n`).join("");
    // it may well connect without them: where it does not, the link's own patience ends it
    await this.ports.fetch(this.session.href, { method: "PATCH", headers, body, credentials: "omit" }).catch(() => undefined);
  }

  private end(): void {
    if (this.over) return;
    this.close();
    this.onclose?.({} as CloseEvent);
  }
}
