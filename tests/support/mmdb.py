"""Writes a small file in MaxMind's format (https://maxmind.github.io/MaxMind-DB/), as an operator's own tool would."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

MARKER = b"\xab\xcd\xefMaxMind.com"
STRING, DOUBLE, UINT32, MAP, UINT64, ARRAY = 2, 3, 6, 7, 9, 11


def write_mmdb(path: Path, networks: Mapping[str, Any]) -> Path:
    """IPv4 networks and the record of each: maps, lists, texts, floats and numbers that are not negative."""
    data, tree = b"", [[None, None]]
    for text, record in networks.items():
        network = ip_network(text)
        node = 0
        for depth in range(network.prefixlen):
            bit = int(network.network_address) >> (31 - depth) & 1
            if depth == network.prefixlen - 1:
                tree[node][bit] = -1 - len(data)  # type: ignore[call-overload]
                break
            if tree[node][bit] is None:
                tree.append([None, None])
                tree[node][bit] = len(tree) - 1  # type: ignore[call-overload]
            node = tree[node][bit]  # type: ignore[assignment]
        data += encoded(record)
    count = len(tree)

    def record_of(value: int | None) -> bytes:
        if value is None:
            value = count
        elif value < 0:
            value = count + 16 + (-1 - value)
        return value.to_bytes(3, "big")

    nodes = b"".join(record_of(left) + record_of(right) for left, right in tree)
    about = {
        "binary_format_major_version": 2, "binary_format_minor_version": 0, "build_epoch": 1, "database_type": "Test",
        "description": {"en": "a test"}, "ip_version": 4, "languages": ["en"], "node_count": count, "record_size": 24,
    }  # fmt: skip
    path.write_bytes(nodes + b"\0" * 16 + data + MARKER + encoded(about))
    return path


def encoded(value: Any) -> bytes:
    if isinstance(value, str):
        return _control(STRING, len(value.encode())) + value.encode()
    if isinstance(value, float):
        return _control(DOUBLE, 8) + struct.pack(">d", value)
    if isinstance(value, int):
        kind, size = (UINT32, 4) if value < 1 << 32 else (UINT64, 8)
        return _control(kind, size) + value.to_bytes(size, "big")
    if isinstance(value, list):
        return _control(ARRAY, len(value)) + b"".join(map(encoded, value))
    return _control(MAP, len(value)) + b"".join(encoded(k) + encoded(v) for k, v in value.items())


def _control(kind: int, size: int) -> bytes:
    assert size < 285
    first, more = (size, b"") if size < 29 else (29, bytes([size - 29]))
    return bytes([kind << 5 | first]) + more if kind < 8 else bytes([first, kind - 7]) + more
