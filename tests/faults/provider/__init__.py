"""Tests of the simulated provider; a package, so that its conftest has a name of its own."""
