"""The client library stands alone and says the protocol a second time: here the two are held to each other."""

from __future__ import annotations

import typing

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from app.webhooks import signature
from regions.wire import media as wire
from regions.wire.ticket import TICKET_AUDIENCE, TICKET_ISSUER, Claims, Grant, sign
from voxplane import WebhookError, grants, messages, verify, watch
from voxplane.caller import ALIVE_EVERY_S
from voxplane.links import MESSAGE_BYTES_MAX

FROM_EDGE: list[wire.ToCaller] = [
    wire.Prepared(call="call_x", epoch=2, stamp=7, source="tail"),
    wire.Attached(call="call_x", epoch=2, region="eu-west", edge="edge_x", stamp=2**63, resumed=True),
    wire.Tick(stamp=9),
    wire.Clear(stamp=9, at=wire.Position(utterance=3, offset_ms=40)),
    wire.Snapshot(epoch=2, n=5, sealed="snap.abc"),
    wire.Acked(epoch=2, n=4),
    wire.Notice(type="call.reconnected", at_ms=12, data=msgspec.Raw(b'{"a":[1,"\xc3\xbc"]}')),
    wire.Ticket(ticket="a.b.c"),
    wire.Move(epoch=4, within_ms=30_000),
    wire.Go(epoch=4),
    wire.Ended(end_reason="agent_hung_up"),
    wire.Refused(
        code="full", detail="no room", fix="take the next", next_url="ws://b/v1/media", next_epoch=2
    ),
    wire.Refused(code="forged", detail="not ours"),
]


def fields(message: msgspec.Struct) -> dict[str, typing.Any]:
    decoded: dict[str, typing.Any] = msgspec.json.decode(msgspec.json.encode(message))
    return decoded


def test_constants_are_the_edges() -> None:
    assert messages.SUBPROTOCOL == wire.SUBPROTOCOL
    assert messages.MEDIA_PATH == wire.MEDIA_PATH
    assert (messages.HEADER.format, messages.HEADER.size) == (wire.HEADER.format, wire.HEADER_BYTES)
    assert (messages.AUDIO, messages.FLAG_FILLER) == (wire.AUDIO, wire.FLAG_FILLER)
    assert (watch.PREPARE_AFTER_MS, watch.TAKE_AFTER_MS) == (wire.PREPARE_AFTER_MS, wire.TAKE_AFTER_MS)
    assert ALIVE_EVERY_S * 1000 <= wire.ALIVE_EVERY_MS < wire.LEASE_MS
    assert watch.PREPARE_AFTER_MS > 2 * wire.TICK_MS
    longest = messages.HEADER.size + max(wire.SAMPLE_RATES) * 2 * messages.PIECE_MS_MAX // 1000
    assert longest == wire.BINARY_BYTES_MAX
    assert max(wire.SNAPSHOT_BYTES_MAX, wire.TEXT_BYTES_MAX, wire.BINARY_BYTES_MAX) < MESSAGE_BYTES_MAX


def test_every_message_an_edge_sends_is_known_by_its_name() -> None:
    theirs = {t.__struct_config__.tag for t in typing.get_args(wire.ToCaller)}
    ours = {t.__struct_config__.tag for t in typing.get_args(messages.FromEdge)}
    assert ours == theirs == {m.__struct_config__.tag for m in FROM_EDGE}


@pytest.mark.parametrize("sent", FROM_EDGE, ids=lambda m: type(m).__name__)
def test_what_an_edge_sends_is_read_as_it_was_meant(sent: wire.ToCaller) -> None:
    read = messages.read(msgspec.json.encode(sent).decode())
    assert read is not None
    meant, got = fields(sent), fields(read)
    assert {k: v for k, v in got.items() if v} == {k: v for k, v in meant.items() if k in got and v}
    assert set(meant) - set(got) <= {"call", "edge", "lease_ms", "source"}, "left out on purpose"


@given(st.text(max_size=200))
def test_nothing_an_edge_sends_raises(text: str) -> None:
    messages.read(text)


@given(st.binary(max_size=60))
def test_no_bytes_an_edge_sends_raise(data: bytes) -> None:
    read = messages.read_audio(data)
    assert (read is None) == (len(data) <= wire.HEADER_BYTES or data[0] != wire.AUDIO)


U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)


@given(st.binary(min_size=1, max_size=64), st.integers(0, 2**20), U64, U32, U32, st.booleans())
def test_audio_is_the_same_on_both_sides(
    samples: bytes, sequence: int, stamp: int, utterance: int, offset_ms: int, filler: bool
) -> None:
    flags = wire.FLAG_FILLER if filler else 0
    place = {"sequence": sequence, "stamp": stamp, "utterance": utterance, "offset_ms": offset_ms}
    read = messages.read_audio(wire.pack(samples, flags=flags, **place))
    assert read == messages.Audio(stamp, utterance, offset_ms, samples, filler)
    played = messages.Position(utterance=utterance, offset_ms=offset_ms)
    sent = messages.write_audio(samples, sequence=sequence, stamp=stamp, played=played)
    assert sent == wire.pack(samples, **place)


def standing() -> messages.Standing:
    known = messages.Standing()
    for message in FROM_EDGE:
        read = messages.read(msgspec.json.encode(message).decode())
        assert read is not None
        known.heard(read)
    known.played = messages.Position(utterance=3, offset_ms=60)
    return known


RESUME = wire.Resume(
    epoch=2, n=4, played=wire.Position(utterance=3, offset_ms=60), snapshot="snap.abc"
)  # fmt: skip


@pytest.mark.parametrize("mode", ["attach", "prepare", "take", "resume"])
@pytest.mark.parametrize("encoding", ["pcm16", "mulaw"])
def test_an_attach_is_what_an_edge_reads(mode: typing.Any, encoding: typing.Any) -> None:
    text = standing().attach("a.b.c", 2, mode, encoding=encoding, sample_rate=8_000)
    resume = None if mode == "attach" else RESUME
    assert wire.from_caller_decoder.decode(text) == wire.Attach(
        ticket="a.b.c", epoch=2, mode=mode, encoding=encoding, sample_rate=8_000, resume=resume
    )


def test_the_other_messages_are_what_an_edge_reads() -> None:
    known, read = standing(), wire.from_caller_decoder.decode
    reasons: list[typing.Any] = ["silent", "closed", "refused", "planned"]
    for reason in reasons:
        assert read(known.take(reason)) == wire.Take(resume=RESUME, reason=reason)
    assert read(known.alive()) == wire.Alive(stamp=9, played=RESUME.played)
    assert read(known.dtmf("#")) == wire.Dtmf(digit="#", stamp=9)
    assert read(messages.hangup()) == wire.Hangup()
    assert [read(messages.talk(on)) for on in (True, False)] == [wire.Talk(on=True), wire.Talk(on=False)]
    assert known.wishes() == []
    known.talking = known.hanging_up = True
    assert [read(wish) for wish in known.wishes()] == [wire.Talk(on=True), wire.Hangup()]
    assert read(messages.ready(4, "")) == wire.Ready(epoch=4)
    assert read(messages.ready(4, "full")) == wire.Ready(epoch=4, code="full")
    assert read(messages.moved(4)) == wire.Moved(epoch=4)
    assert read(messages.Standing().take("closed")) == wire.Take(resume=wire.Resume(), reason="closed")


@given(st.integers() | st.sampled_from((-1, 2**64 - 1, 2**64)))
def test_a_stamp_that_could_not_be_sent_back_is_not_taken(stamp: int) -> None:
    known = messages.Standing()
    read = messages.read(f'{{"type":"tick","stamp":{stamp}}}')
    if read is not None:
        known.heard(read)
    assert known.stamp == (stamp if 0 <= stamp < 2**64 else 0)
    assert messages.write_audio(b"x", sequence=1, stamp=known.stamp, played=known.played)


def test_grants_are_read_as_a_ticket_writes_them() -> None:
    written = [
        Grant(epoch=e, edge=f"edge_{e}", incarnation="i", region=f"r{e}", url=f"wss://e{e}:1")
        for e in (3, 1, 2)
    ]
    claims = Claims(
        iss=TICKET_ISSUER, aud=TICKET_AUDIENCE, call="call_x", project="prj_x", jti="j", iat=1, exp=2, attach_by=2, max_s=1,
        grants=written, sealed="x",
    )  # fmt: skip
    call, read = grants.read_grants(sign(claims, kid="k", key=Ed25519PrivateKey.generate()))
    assert call == "call_x"
    assert read == [grants.Grant(e, f"r{e}", f"wss://e{e}:1") for e in (1, 2, 3)]


@settings(max_examples=50)
@given(
    st.binary(max_size=200), st.lists(st.binary(min_size=24, max_size=64), min_size=1, max_size=3), st.data()
)
def test_what_we_sign_verifies_and_nothing_else(
    raw: bytes, secrets: list[bytes], data: st.DataObject
) -> None:
    body = msgspec.json.encode({"id": "evt_1", "data": raw})
    sent = signature.headers("evt_1", 1_000, signature.sign("evt_1", 1_000, body, secrets))
    for secret in secrets:
        assert verify(body, sent, signature.write_secret(secret), now_s=1_000)["id"] == "evt_1"
    at = data.draw(st.integers(0, len(body) - 1))
    changed = body[:at] + bytes([body[at] ^ data.draw(st.integers(1, 255))]) + body[at + 1 :]
    with pytest.raises(WebhookError):
        verify(changed, sent, signature.write_secret(secrets[0]), now_s=1_000)
