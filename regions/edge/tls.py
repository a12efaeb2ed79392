"""TLS of this edge: the certificate that its listeners show, taken anew when its files change, and whom it trusts itself.

What makes a certificate good is `regions.wire.certificate`'s. Both listeners share one context: a connection that is open goes on
as it began, the next one is shown the newest certificate.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
from websockets.asyncio.client import ClientConnection, connect

from regions.edge.context import EdgeContext
from regions.edge.settings import EdgeSettings, SettingsError
from regions.wire.certificate import LOOK_EVERY_S, SOON_S, CertificateError, Served

log = structlog.get_logger()

DAY_S = 86_400
ANY = ("", "0.0.0.0", "::")


Connect = Callable[..., AbstractAsyncContextManager[ClientConnection]]
"""Opens a WebSocket as `websockets.connect` does, and raises what it raises."""


def connect_trusting(
    tls: ssl.SSLContext, url: str, **more: Any
) -> AbstractAsyncContextManager[ClientConnection]:
    return connect(url, ssl=tls if url.startswith("wss:") else None, **more)


class ServedTls:
    def __init__(self, certificate: Path, key: Path, hosts: tuple[str, ...] = ()) -> None:
        """Raises `CertificateError`."""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.served = Served(
            lambda: (certificate.read_bytes(), key.read_bytes()),
            lambda: self.context.load_cert_chain(certificate, key),
            now_s=time.time,
            hosts=hosts,
        )

    def start(self, stack: AsyncExitStack, context: EdgeContext) -> None:
        """Keeps it renewed until the stack is closed, and lets the metrics say how long it is good for."""
        context.certificate_ends_in_s = lambda: self.served.ends_in_s
        stack.callback(asyncio.create_task(self.keep_renewed()).cancel)

    async def keep_renewed(self) -> None:
        """Until cancelled. What is no good is said once, and the one before is shown on."""
        trouble, told_s = "", 0.0
        while True:
            served = self.served
            if served.ends_in_s < SOON_S and time.monotonic() - told_s > DAY_S:
                told_s = time.monotonic()
                log.warning("tls.ends_soon", days=round(served.ends_in_s / DAY_S, 1))
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                if served.look():
                    trouble, told_s = "", 0.0
                    log.info("tls.renewed", fingerprint=served.certificate.fingerprint)
            except CertificateError as error:
                if error.code != trouble:
                    trouble = error.code
                    log.error("tls.not_renewed", code=error.code, detail=error.detail, fix=error.fix)


def tls_of(settings: EdgeSettings) -> ServedTls | None:
    """None where the listeners are plain. Raises `SettingsError`."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    hosts = []
    for name, url, bound in (
        ("VOXPLANE_PUBLIC_MEDIA_URL", settings.public_media_url, settings.media_host),
        ("VOXPLANE_PUBLIC_HTTP_URL", settings.public_http_url, settings.http_host),
    ):
        if url and not url.startswith(("wss://", "https://")):
            raise SettingsError(
                f"{name} is {url}, and VOXPLANE_TLS_CERT makes the listener speak TLS: begin it with"
                f" {'wss' if 'MEDIA' in name else 'https'}://, or leave the certificate to a proxy in front"
            )
        if host := (urlsplit(url).hostname if url else bound if bound not in ANY else None):
            hosts.append(host)
    try:
        return ServedTls(settings.tls_certificate, settings.tls_key, tuple(dict.fromkeys(hosts)))
    except CertificateError as error:
        raise SettingsError(f"VOXPLANE_TLS_CERT, VOXPLANE_TLS_KEY: {error}") from None


def trusting(ca_file: str) -> ssl.SSLContext:
    """For what this process connects to: what the machine trusts, and what that file has. Raises `SettingsError`."""
    context = ssl.create_default_context()
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:
            raise SettingsError(
                f"VOXPLANE_CA_FILE, {ca_file}, holds no certificates ({error.strerror or type(error).__name__}):"
                " name a file of CA certificates in PEM"
            ) from None
    return context
