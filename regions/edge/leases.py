"""A lease that begins now, with stamps that nobody can guess: the clock and the chance, which `Lease` itself does not ask for."""

from __future__ import annotations

import os

from regions.edge.clock import lease_ms
from regions.edge.lease import Lease


def lease_from_now() -> Lease:
    return Lease(lease_ms(), int.from_bytes(os.urandom(6), "big"))
