"""What a model thinks in OpenAI's harmony format, out of a stream that was not parsed by its server."""

from __future__ import annotations

from typing import Final

from ultra._support.lazy import lazy_pattern

__all__ = ["HarmonyReasoning"]

_TOKEN: Final = lazy_pattern(r"<\|([a-z_]{1,16})\|>")
_BEGUN_TOKEN: Final = lazy_pattern(r"<(?:\|[a-z_]{0,16}\|?)?\Z")
_MESSAGE: Final = "message"


class HarmonyReasoning:
    """Returns the words of messages, without the tokens and the names of channels around them.

    ::

        reasoning = HarmonyReasoning()  # behind the first <|channel|>
        reasoning.feed("analysis<|mess") == ""
        reasoning.feed("age|>One and one.<|end|>") == "One and one."
    """

    def __init__(self) -> None:
        self._rest = ""
        self._in_message = False
        self._said = False

    def feed(self, text: str) -> str:
        """Return the words in the next piece of the stream."""
        text, self._rest = self._rest + text, ""
        begun = _BEGUN_TOKEN().search(text)
        if begun is not None:
            text, self._rest = text[: begun.start()], text[begun.start() :]
        words: list[str] = []
        at = 0
        for token in _TOKEN().finditer(text):
            self._add(words, text[at : token.start()])
            self._in_message = token[1] == _MESSAGE  # behind the other tokens are names, or nothing
            if self._in_message and self._said:
                words.append("\n\n")
            at = token.end()
        self._add(words, text[at:])
        return "".join(words)

    def _add(self, words: list[str], text: str) -> None:
        if self._in_message and text:
            self._said = True
            words.append(text)
