"""Whom this library trusts over TLS: what Python trusts, and the CA certificates in the file that VOXPLANE_CA_FILE names, if any.

A deployment of one's own machine (`voxplane up --tls`) has an authority of its own, and prints that file.
"""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from typing import Any

from voxplane.errors import VoxplaneError

VARIABLE = "VOXPLANE_CA_FILE"


class UntrustedFile(VoxplaneError):
    """VOXPLANE_CA_FILE names a file that holds no CA certificates in PEM, or cannot be read."""


def context() -> ssl.SSLContext | None:
    """None where nothing is named: then each library's own is used. Raises `UntrustedFile`."""
    path = os.environ.get(VARIABLE, "")
    return _context(path) if path else None


def secured(url: str) -> dict[str, Any]:
    """What `websockets.connect` is given beside the URL."""
    found = context() if url.startswith("wss:") else None
    return {} if found is None else {"ssl": found}


def why_broken(error: BaseException) -> str:
    """Why a connection did not come to be, as it stands in `Unavailable.causes`: its kind, and of TLS what to do."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({seen.verify_message}); name its authority's file in {VARIABLE}"
        seen = seen.__cause__ or seen.__context__
    return type(error).__name__


@lru_cache(maxsize=8)
def _context(path: str) -> ssl.SSLContext:
    made = ssl.create_default_context()
    try:
        made.load_verify_locations(path)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise UntrustedFile(f"{VARIABLE} is {path}, which holds no CA certificates in PEM ({why})") from None
    return made
