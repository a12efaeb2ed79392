"""The edge process: registration, uplink, leases, and the calls it holds."""
