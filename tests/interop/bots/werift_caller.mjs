// A caller over WebRTC, on werift: a tone goes out and tones are counted, on one peer connection per edge. Arguments: the edges' URLs for
// offers, in order, as JSON; the ticket. Takes words on its standard input (`press 1`, `hangup`), says what happens as lines of JSON.
import { createInterface } from 'node:readline';
import OpusScript from 'opusscript';
import { MediaStreamTrack, RTCPeerConnection, RTCRtpCodecParameters, RtpHeader, RtpPacket } from 'werift';

const [urls, ticket] = [JSON.parse(process.argv[2]), process.argv[3]];
const RATE_HZ = 48_000;
const FRAME = RATE_HZ / 50;
const CALLER_HZ = 500;
const TONES = [500, 700];
const SILENT_MS = 500;

const say = (what) => console.log(JSON.stringify(what));
const opus = () => new OpusScript(RATE_HZ, 1, OpusScript.Application.AUDIO);

/** Share of that tone in the power of the samples. */
function share(samples, hz) {
  let [re, im, power] = [0, 0, 0];
  samples.forEach((v, i) => {
    re += v * Math.cos((2 * Math.PI * hz * i) / RATE_HZ);
    im += v * Math.sin((2 * Math.PI * hz * i) / RATE_HZ);
    power += v * v;
  });
  if (power / samples.length < 250_000) return 0;
  return (2 * (re * re + im * im)) / samples.length / power;
}

class Line {
  constructor(epoch, resume) {
    this.epoch = epoch;
    this.resume = resume;
    this.lastMs = Date.now();
    this.owner = false;
    this.decoder = opus();
    this.heard = Object.fromEntries(TONES.map((hz) => [hz, 0]));
    this.pc = new RTCPeerConnection({
      iceServers: [],
      iceAdditionalHostAddresses: ['127.0.0.1'],
      codecs: { audio: [new RTCRtpCodecParameters({ mimeType: 'audio/opus', clockRate: RATE_HZ, channels: 2 })] },
    });
    this.channel = this.pc.createDataChannel('voxplane.media.v1');
    this.track = new MediaStreamTrack({ kind: 'audio' });
    const transceiver = this.pc.addTransceiver(this.track, { direction: 'sendrecv' });
    transceiver.onTrack.subscribe((track) => track.onReceiveRtp.subscribe((rtp) => this.hears(rtp.payload)));
    this.channel.stateChanged.subscribe((state) => state === 'open' && this.attach());
    this.channel.onMessage.subscribe((text) => this.said(JSON.parse(String(text))));
  }

  async open() {
    await this.pc.setLocalDescription(await this.pc.createOffer());
    if (this.pc.iceGatheringState !== 'complete') {
      await this.pc.iceGatheringStateChange.watch((state) => state === 'complete', 5_000);
    }
    const answer = await fetch(urls[this.epoch - 1], {
      method: 'POST',
      headers: { Authorization: `Bearer ${ticket}`, 'Content-Type': 'application/sdp' },
      body: this.pc.localDescription.sdp,
    });
    const text = await answer.text();
    if (answer.status !== 201) throw new Error(`${answer.status}: ${text}`);
    this.session = new URL(answer.headers.get('location'), urls[this.epoch - 1]);
    await this.pc.setRemoteDescription({ type: 'answer', sdp: text });
  }

  tell(message) {
    if (this.channel.readyState === 'open') this.channel.send(JSON.stringify(message));
  }

  attach() {
    const more = this.resume ? { resume: this.resume, reason: 'silent' } : {};
    this.tell({ type: 'attach', ticket, epoch: this.epoch, mode: this.resume ? 'take' : 'attach', ...more });
  }

  said(message) {
    this.lastMs = Date.now();
    const { type, stamp, at } = message;
    if (type === 'attached') this.owner = true;
    if (type === 'snapshot') standing.snapshot = message.sealed;
    if (type === 'acked') [standing.epoch, standing.n] = [message.epoch, message.n];
    if (type === 'tick') {
      if (at?.utterance) standing.played = at;
      this.tell({ type: 'alive', stamp, played: standing.played });
    } else if (type === 'attached' || type === 'refused' || type === 'ended') {
      say(message);
    }
    if (type === 'attached') this.tell({ type: 'alive', stamp, played: standing.played });
  }

  hears(payload) {
    const pcm = this.decoder.decode(payload);
    const samples = new Int16Array(pcm.buffer, pcm.byteOffset, pcm.length / 2);
    for (const hz of TONES) {
      if (share(samples, hz) > 0.7 && ++this.heard[hz] % 25 === 0) say({ type: 'heard', hz, frames: this.heard[hz], epoch: this.epoch });
    }
  }
}

const standing = { epoch: 0, n: 0, played: { utterance: 0, offset_ms: 0 } };
let line = new Line(1, null);

const encoder = opus();
let [sequence, timestamp, phase] = [0, 0, 0];
const began = performance.now();
setInterval(() => {
  while (performance.now() - began >= sequence * 20) {
    const samples = Buffer.alloc(FRAME * 2);
    for (let i = 0; i < FRAME; i++, phase++) samples.writeInt16LE(Math.round(8_000 * Math.sin((2 * Math.PI * CALLER_HZ * phase) / RATE_HZ)), i * 2);
    const payload = encoder.encode(samples, FRAME);
    const header = new RtpHeader({ payloadType: 96, sequenceNumber: sequence & 0xffff, timestamp, ssrc: 1 });
    if (line.owner) line.track.writeRtp(new RtpPacket(header, payload));
    sequence += 1;
    timestamp = (timestamp + FRAME) >>> 0;
  }
  if (line.owner && Date.now() - line.lastMs > SILENT_MS) {
    const old = line;
    line = new Line(old.epoch + 1, { ...standing });
    line.open().catch((error) => say({ type: 'failed', error: String(error) }));
    old.pc.close();
  }
}, 10);

createInterface({ input: process.stdin }).on('line', (text) => {
  const [word, digit] = text.split(' ');
  if (word === 'press') line.tell({ type: 'dtmf', digit, stamp: 0 });
  if (word === 'hangup') line.tell({ type: 'hangup' });
  // as WHIP has it
  if (word === 'delete') fetch(line.session, { method: 'DELETE' }).then(({ status }) => say({ type: 'deleted', status }));
});
line.open().catch((error) => say({ type: 'failed', error: String(error) }));
