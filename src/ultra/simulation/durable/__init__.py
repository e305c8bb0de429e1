"""Submitted runs under crashes of their processes and faults of their journal."""
