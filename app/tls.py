"""TLS of an instance: the certificate that it shows, taken anew when its files change. What makes one good is
`regions.wire.certificate`'s. A connection that is open goes on as it began, the next one is shown the newest certificate.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path

import structlog

from app.telemetry import certificate_ends_seconds
from regions.wire.certificate import LOOK_EVERY_S, SOON_S, CertificateError, Served

log = structlog.get_logger()

DAY_S = 86_400


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
        certificate_ends_seconds.set_function(lambda: self.served.ends_in_s)

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
