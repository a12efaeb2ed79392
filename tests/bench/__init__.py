"""Benchmarks: one module per family, each measured on real processes, sockets and disks. See docs/explanation/benchmarks.md."""
