"""Ingress: the ways in which a caller reaches an edge."""
