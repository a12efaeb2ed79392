"""The deployment under test: three regions, two instances, and a link in front of everything that one part reaches another by.

Decides the names of the links and the settings that lead through them; what a part is told otherwise is `app.local.deployment`'s.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from app.local.deployment import PLACES, Deployment, Place
from tests.chaos.network import Network, Wire

INSTANCES = 2
CAPACITY_CALLS = 200
ATTACH_WITHIN_S = 5
LOST_AFTER_S = 10


class Wired(Deployment):
    """Links: ``caller>REGION``, ``REGION>api-I``, ``REGION>valkey``, ``api-I>postgres``, ``api-I>valkey.REGION``."""

    def __init__(self, folder: Path, network: Network) -> None:
        super().__init__(folder, places=PLACES[:3], instances=INSTANCES, capacity_calls=CAPACITY_CALLS)
        self.network = network

    async def wire(self) -> None:
        assert self.postgres is not None
        valkeys = {region: urlsplit(url).port or 0 for region, url in self.redis_urls.items()}
        for i in range(INSTANCES):
            await self.network.open(f"api-{i}>postgres", self.postgres.port)
            for region, port in valkeys.items():
                await self.network.open(f"api-{i}>valkey.{region}", port)
        for place in self.places:
            await self.network.open(f"{place.id}>valkey", valkeys[place.id])
            for i, port in enumerate(self.api_ports):
                await self.network.open(f"{place.id}>api-{i}", port)

    async def caller_link(self, place: Place, media_port: int) -> Wire:
        return await self.network.open(f"caller>{place.id}", media_port)

    def api_environment(self, port: int) -> dict[str, str]:
        i = self.api_ports.index(port)
        redis_urls = {
            region: self._through(f"api-{i}>valkey.{region}", url) for region, url in self.redis_urls.items()
        }
        return super().api_environment(port) | {
            "DATABASE_URL": self._through(f"api-{i}>postgres", self.database_url),
            "REDIS_URLS": ",".join(f"{region}={url}" for region, url in redis_urls.items()),
            "VOXPLANE_ATTACH_WITHIN_S": str(ATTACH_WITHIN_S),
            "VOXPLANE_LOST_AFTER_S": str(LOST_AFTER_S),
        }

    def edge_environment(self, place: Place, token: str, media_port: int, public_url: str) -> dict[str, str]:
        # each region asks another instance first, so that both carry uplinks
        first = self.places.index(place)
        ports = [
            self.network.wires[f"{place.id}>api-{(first + i) % INSTANCES}"].port for i in range(INSTANCES)
        ]
        return super().edge_environment(place, token, media_port, public_url) | {
            "VOXPLANE_CONTROL_URLS": ",".join(f"http://127.0.0.1:{p}" for p in ports),
            "VOXPLANE_UPLINK_URLS": ",".join(f"ws://127.0.0.1:{p}" for p in ports),
            "VOXPLANE_REDIS_URL": f"redis://127.0.0.1:{self.network.wires[f'{place.id}>valkey'].port}/0",
        }

    def _through(self, wire: str, url: str) -> str:
        parsed = urlsplit(url)
        login = parsed.netloc.rpartition("@")[0]
        netloc = f"{login}@127.0.0.1:{self.network.wires[wire].port}"
        return urlunsplit(parsed._replace(netloc=netloc))
