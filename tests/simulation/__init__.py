"""The deterministic simulation: production code under a virtual clock, a seeded scheduler and an unkind world."""
