"""The fleet: regions, their edges, what is known of their health, and the uplinks they speak through."""
