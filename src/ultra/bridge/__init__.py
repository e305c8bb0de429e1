"""Trio beside asyncio: a portal from one to the other, and the trio run that an orchestrator's actors use."""
