"""Egress: the dialects in which an edge speaks to the customer's AI backend."""
