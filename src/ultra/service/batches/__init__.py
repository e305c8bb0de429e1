"""Batches: many runs at once, of which some run at a time; they go on after a restart."""
