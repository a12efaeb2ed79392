"""Proofs that take minutes: real processes are killed under load, and every answer that was given is accounted for."""
