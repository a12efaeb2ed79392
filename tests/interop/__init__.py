"""Calls with programs of others as their backends, as they are published: `make interop`."""
