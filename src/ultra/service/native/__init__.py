"""Ultra's own protocol: a run with all its settings, and all its events."""
