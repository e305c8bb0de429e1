"""Small things that know nothing of the rest: randomness, logging, clocks, mappings, lazy names, checks."""
