"""The words by which APIs say why a model stopped, and what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ultra.messages.results import FinishReason

__all__ = ["read_finish_reason"]

_MEANINGS: Final[Mapping[FinishReason, tuple[str, ...]]] = {
    "stop": (
        "stop",
        "end_turn",
        "stop_sequence",
        "eos",  # Together
        "eos_token",
        "complete",  # Cohere
        "completed",  # OpenAI's responses
    ),
    "length": (
        "length",
        "max_tokens",
        "max_output_tokens",
        "max_length",
        "model_length",  # Mistral
        "model_context_window_exceeded",
        "pause_turn",  # the turn goes on when it is asked to
    ),
    "tool_calls": ("tool_calls", "tool_call", "tool_use", "function_call"),
    "content_filter": (
        "content_filter",
        "content_filtered",
        "sensitive",  # Zhipu
        "guardrail_intervened",  # Bedrock
        # Gemini's
        "safety",
        "recitation",
        "language",
        "blocklist",
        "prohibited_content",
        "spii",
        "image_safety",
        "image_prohibited_content",
        "image_recitation",
        "model_armor",
    ),
    "refusal": ("refusal",),
}

_KNOWN: Final[Mapping[str, FinishReason]] = {
    word: reason for reason, words in _MEANINGS.items() for word in words
}

_LONGEST: Final = max(map(len, _KNOWN))


def read_finish_reason(word: str | None) -> FinishReason | None:
    """Return what `word` means in any API, whatever its case: ``other`` if it is not known; None for no word.

    One table serves all dialects, since gateways pass on the words of the API behind them.
    """
    if not word:
        return None
    return _KNOWN.get(word.lower(), "other") if len(word) <= _LONGEST else "other"
