"""Prompts by which models read other models' answers: composed, fenced, and cut to fit the context window."""

from typing import TYPE_CHECKING

from ultra._support.lazy import lazy_names

if TYPE_CHECKING:
    from ultra.prompts.composing import Candidate, Prompt, Task, compose, prompt_budget

__all__ = ["Candidate", "Prompt", "Task", "compose", "prompt_budget"]

__getattr__, __dir__ = lazy_names(__name__, dict.fromkeys(__all__, "ultra.prompts.composing"))
