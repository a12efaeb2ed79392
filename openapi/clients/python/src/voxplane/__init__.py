"""The client library of Voxplane: create and follow calls, attach as a caller, verify webhooks."""

from voxplane.caller import AsyncCaller, CallLost, Frame, Gap
from voxplane.client import AsyncClient, Client
from voxplane.errors import ApiError, Unavailable, VoxplaneError
from voxplane.probing import Latency, probe_regions
from voxplane.webhooks import WebhookError, verify

__all__ = [
    "ApiError",
    "AsyncCaller",
    "AsyncClient",
    "CallLost",
    "Client",
    "Frame",
    "Gap",
    "Latency",
    "Unavailable",
    "VoxplaneError",
    "WebhookError",
    "probe_regions",
    "verify",
]
