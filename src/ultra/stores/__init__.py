"""Stores that keep models' answers beyond the process: the contract is `ultra.stores.contracts.CacheStore`.

They stand apart from the actors because actors need none of them: `open_cache` imports the one that is
asked for.
"""

from ultra.stores.opening import open_cache

__all__ = ["open_cache"]
