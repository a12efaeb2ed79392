"""TLS on an edge's media listener: served, trusted by the client library, renewed under calls; and what is said of a bad one."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from picows import ws_create_server

from app.local import certificates
from app.local.certificates import LocalTls, local_tls
from app.telemetry import registry
from app.tls import ServedTls as OfInstance
from regions.callers.websocket import route
from regions.edge.settings import EdgeSettings, SettingsError
from regions.edge.tls import ServedTls, tls_of, trusting
from regions.wire.certificate import CertificateError, checked
from tests.support.edges import until
from tests.support.lone_edge import Backend, lone_edge
from voxplane import AsyncCaller, AsyncClient, Unavailable
from voxplane.errors import VoxplaneError

EDGE = {"VOXPLANE_REGION": "lab", "VOXPLANE_EDGE_NAME": "e", "VOXPLANE_CONTROL_URLS": "http://one"}


def files(made: LocalTls) -> tuple[Path, Path]:
    return Path(made.environment["VOXPLANE_TLS_CERT"]), Path(made.environment["VOXPLANE_TLS_KEY"])


def made_at(folder: Path, monkeypatch: pytest.MonkeyPatch, *, days_ago: int) -> LocalTls:
    class Then(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) - timedelta(days=days_ago)

    with monkeypatch.context() as patch:
        patch.setattr(certificates, "datetime", Then)
        return local_tls(folder)


async def shown(url: str, trusted: Path) -> str:
    """The fingerprint of what a new connection is shown."""
    host, port = url.removeprefix("wss://").split(":")
    context = ssl.create_default_context(cafile=trusted)
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    try:
        found = writer.get_extra_info("ssl_object").getpeercert(True)
    finally:
        writer.close()
    pem = ssl.DER_cert_to_PEM_cert(found).encode()
    key = files(LocalTls(environment=dict(os.environ)))[1].read_bytes()
    return checked(pem, key, now_s=time.time()).fingerprint


async def test_a_call_goes_on_while_the_certificate_is_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = made_at(tmp_path / "tls", monkeypatch, days_ago=70)
    for name, value in tls.environment.items():
        monkeypatch.setenv(name, value)
    served = ServedTls(*files(tls), ("127.0.0.1", "localhost"))
    async with lone_edge(tmp_path) as edge, Backend().run() as made:
        server = await ws_create_server(
            lambda request: route(edge.calls, request), "127.0.0.1", 0, ssl=served.context
        )
        edge.url = f"wss://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            assert await shown(edge.url, tls.ca_file) == tls.fingerprints[1]
            async with AsyncCaller(edge.ticket(made.url), encoding="mulaw", sample_rate=8_000) as caller:
                await until(lambda: made.starts, "the backend")
                renewed = local_tls(tmp_path / "tls")
                assert [a == b for a, b in zip(renewed.fingerprints, tls.fingerprints, strict=True)] == [
                    True,
                    False,
                ]
                assert served.served.look() and not served.served.look()
                assert await shown(edge.url, tls.ca_file) == renewed.fingerprints[1]
                files(tls)[0].write_text("half a fi")
                with pytest.raises(CertificateError, match="not in PEM"):
                    served.served.look()
                assert not served.served.look(), "that was said"
                assert served.served.certificate.fingerprint == renewed.fingerprints[1]
                got = len(made.got)
                await until(lambda: len(made.got) > got + 5, "the call goes on")
                await caller.hangup()
            await until(lambda: edge.log.of("call.ended"), "the end")
        finally:
            server.close()


async def test_who_does_not_trust_the_authority_is_not_served(tmp_path: Path) -> None:
    tls = local_tls(tmp_path / "tls")
    served = ServedTls(*files(tls))
    async with lone_edge(tmp_path) as edge:
        server = await ws_create_server(
            lambda request: route(edge.calls, request), "127.0.0.1", 0, ssl=served.context
        )
        try:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.open_connection("127.0.0.1", port, ssl=ssl.create_default_context())
        finally:
            server.close()


def test_the_metrics_of_an_instance_say_how_long_its_certificate_is_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for days_ago in (50, 70):
        made = made_at(tmp_path / str(days_ago), monkeypatch, days_ago=days_ago)
        OfInstance(*files(made))
        ends_s = registry.get_sample_value("voxplane_certificate_ends_seconds")
        assert ends_s is not None
        assert round(ends_s / 86_400) == 90 - days_ago


async def test_a_client_that_does_not_trust_the_authority_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VOXPLANE_CA_FILE", raising=False)
    served = ServedTls(*files(local_tls(tmp_path)))
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=served.context)
    async with (
        server,
        AsyncClient(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", "vx_test_x") as client,
    ):
        with pytest.raises(Unavailable, match=r"not trusted \(.*VOXPLANE_CA_FILE"):
            await client.regions()


def test_the_authority_is_kept_and_renewed_with_what_it_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = local_tls(tmp_path)
    assert local_tls(tmp_path) == first
    assert (tmp_path / "ca.key").stat().st_mode & 0o077 == 0
    (tmp_path / "ca.pem").unlink()
    second = local_tls(tmp_path)
    assert {*first.fingerprints}.isdisjoint(second.fingerprints)


def swap_key(cert: Path, key: Path) -> None:
    other = local_tls(cert.parent / "other")
    shutil.copy(files(other)[1], key)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda cert, key: cert.unlink(), "unreadable"),
        (lambda cert, key: cert.write_bytes(b"\x30\x82"), "not_a_certificate"),
        (lambda cert, key: key.write_text("-----BEGIN PRIVATE KEY-----\n"), "not_a_key"),
        (swap_key, "wrong_key"),
    ],
    ids=["missing", "not PEM", "no key", "another's key"],
)
def test_a_certificate_that_cannot_be_served_says_why(
    tmp_path: Path, spoil: Callable[[Path, Path], object], code: str
) -> None:
    cert, key = files(local_tls(tmp_path))
    spoil(cert, key)
    with pytest.raises(CertificateError) as caught:
        ServedTls(cert, key)
    assert caught.value.code == code
    assert caught.value.fix


def test_one_that_is_over_or_for_another_host_is_refused(tmp_path: Path) -> None:
    cert, key = (path.read_bytes() for path in files(local_tls(tmp_path)))
    now = time.time()
    assert checked(cert, key, now_s=now, hosts=("LOCALHOST", "127.0.0.1", "::1")).names[0] == "localhost"
    for code, at_s, host in (
        ("expired", now + 91 * 86_400, "localhost"),
        ("not_yet_valid", now - 86_400, "localhost"),
        ("wrong_host", now, "edge.example.com"),
    ):
        with pytest.raises(CertificateError) as caught:
            checked(cert, key, now_s=at_s, hosts=(host,))
        assert caught.value.code == code


def test_settings_of_tls_that_do_not_fit_are_told_at_the_start(tmp_path: Path) -> None:
    made = local_tls(tmp_path)
    served = {k: v for k, v in made.environment.items() if k != "VOXPLANE_CA_FILE"}
    assert tls_of(EdgeSettings.from_env(EDGE)) is None
    assert tls_of(EdgeSettings.from_env(EDGE | served)) is not None
    with pytest.raises(SettingsError, match="both"):
        EdgeSettings.from_env(EDGE | {"VOXPLANE_TLS_CERT": "/x"})
    for url, why in (
        ("ws://127.0.0.1:8090", "wss://"),
        ("wss://edge.example.com", "not for edge.example.com"),
    ):
        with pytest.raises(SettingsError, match=why):
            tls_of(EdgeSettings.from_env(EDGE | served | {"VOXPLANE_PUBLIC_MEDIA_URL": url}))
    with pytest.raises(SettingsError, match="VOXPLANE_CA_FILE"):
        trusting(str(tmp_path / "nothing.pem"))


async def test_the_client_library_says_that_its_file_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOXPLANE_CA_FILE", str(tmp_path / "nothing.pem"))
    async with lone_edge(tmp_path) as edge:
        with pytest.raises(VoxplaneError, match="VOXPLANE_CA_FILE"):
            async with AsyncCaller(edge.ticket("ws://127.0.0.1:1/")):
                pass
