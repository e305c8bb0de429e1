"""The embedded model: a small local model that comes as a package."""
