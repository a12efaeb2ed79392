#!/bin/sh
# Runs an edge. The first time it registers with the token that was laid for its region; later its own key is enough.
set -eu
laid="${VOXPLANE_ENROLMENTS:-/enrolments}/${VOXPLANE_REGION:?set VOXPLANE_REGION}"
if [ -z "${VOXPLANE_EDGE_TOKEN:-}" ] && [ -r "$laid" ]; then
    VOXPLANE_EDGE_TOKEN=$(cat "$laid")
    export VOXPLANE_EDGE_TOKEN
fi
exec python -m regions.edge
