"""Trio beside asyncio: a portal from one to the other, and where the actors of an orchestrator run."""
