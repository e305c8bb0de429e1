"""Ensembles of Ultra as models of the command llm."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import llm

from llm_ultra.models import AsyncUltraModel, UltraModel
from llm_ultra.sources import ALL, find_source

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["AsyncUltraModel", "UltraModel", "register_models"]

# Else Python writes Ultra's warnings to stderr, beside the answer; a program that configures logs has them.
logging.getLogger("ultra").addHandler(logging.NullHandler())


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    """Register the ensembles and models of the user's configuration, or of what can be used without one."""
    source = find_source()
    for name in source.names:
        aliases = ("ultra",) if name == ALL else ()
        register(UltraModel(source, name), AsyncUltraModel(source, name), aliases=aliases)
