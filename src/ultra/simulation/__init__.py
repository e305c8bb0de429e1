"""Seeded simulations: virtual time, a repeatable schedule, and checks of every guarantee."""
