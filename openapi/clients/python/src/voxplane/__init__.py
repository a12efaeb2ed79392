"""The client library of Voxplane: create and follow calls, attach as a caller, verify webhooks and upgrades."""

from voxplane.caller import AsyncCaller
from voxplane.client import AsyncClient, Client
from voxplane.errors import ApiError, CallLost, CallRefused, Unavailable, VoxplaneError
from voxplane.events import Event, typed
from voxplane.hearing import Frame, Gap
from voxplane.probing import Latency, probe_regions
from voxplane.upgrades import UpgradeError, verify_upgrade
from voxplane.webhooks import WebhookError, verify

__all__ = [
    "ApiError",
    "AsyncCaller",
    "AsyncClient",
    "CallLost",
    "CallRefused",
    "Client",
    "Event",
    "Frame",
    "Gap",
    "Latency",
    "Unavailable",
    "UpgradeError",
    "VoxplaneError",
    "WebhookError",
    "probe_regions",
    "typed",
    "verify",
    "verify_upgrade",
]
