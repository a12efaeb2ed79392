"""The control plane: any number of equal instances over PostgreSQL (the truth) and Valkey (fast, regional, never the truth)."""
