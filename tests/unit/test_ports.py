"""The ports of a deployment of this machine's own: one range, and a word where somebody else is there."""

from __future__ import annotations

import socket

import pytest

from app.local.ports import Ports
from app.local.process import EngineError, free_port


def test_the_range_and_any_that_is_free() -> None:
    base = free_port() % 20_000 + 20_000
    ports = Ports(base)
    assert (ports.cluster, Ports(0).cluster, Ports(0).http(1)) == (base + 40, 0, 0)
    assert Ports(0).api(0) > 0
    with socket.create_server(("127.0.0.1", 0)) as taken:
        beside = Ports(taken.getsockname()[1] - 21)
        with pytest.raises(EngineError) as refused:
            beside.http(1)
        assert f"{taken.getsockname()[1] - 21 + 100}" in str(refused.value)
