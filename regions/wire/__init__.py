"""Every shape that crosses the border between a region and the control plane, or between an edge and a caller.

Structs and pure codecs only: no sockets, no clocks, no randomness. Edges are upgraded later than the control
plane, so a field is only ever added, with a default; unknown fields from the other side are tolerated.
"""
