"""Lays an enrolment token for one edge of each region into a folder, and creates the regions that are missing. Run once.

    VOXPLANE_URL, VOXPLANE_OPERATOR_KEY    whom to ask, and by which right
    VOXPLANE_REGIONS                       id:jurisdiction:latitude:longitude, separated by commas
    VOXPLANE_ENROLMENTS                    the folder (/enrolments)

A token is good for five minutes, for one edge, once; an edge that has registered before needs none.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import httpx

REGIONS = "us-east:us:38.9:-77.4,eu-west:eu:50.1:8.7,ap-south:in:19.1:72.9"


def lay(url: str, key: str, regions: str, folder: Path) -> None:
    """Raises `httpx.HTTPError` where the control plane does not answer, or says no."""
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=10) as client:
        known = {region["id"] for region in client.get("/admin/v1/regions").raise_for_status().json()["data"]}
        for part in regions.split(","):
            name, jurisdiction, latitude, longitude = part.strip().split(":")
            if name not in known:
                body = {
                    "id": name,
                    "jurisdiction": jurisdiction,
                    "latitude": float(latitude),
                    "longitude": float(longitude),
                }
                client.post("/admin/v1/regions", json=body).raise_for_status()
            token = client.post(f"/admin/v1/regions/{name}/enrol").raise_for_status().json()["token"]
            (folder / name).write_text(token)


def main() -> int:
    env = os.environ
    try:
        lay(
            env["VOXPLANE_URL"],
            env["VOXPLANE_OPERATOR_KEY"],
            env.get("VOXPLANE_REGIONS") or REGIONS,
            Path(env.get("VOXPLANE_ENROLMENTS") or "/enrolments"),
        )
    except (httpx.HTTPError, OSError, ValueError, KeyError) as error:
        sys.stderr.write(f"enrol: {type(error).__name__}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
