"""What a model wrote, without what is not its answer: reasoning, and marks that it copied from its prompt.

Servers without a reasoning parser leave the reasoning of a model in the text, in tags or in channels. No
other model may read it, and it is no part of a result; it goes to `Completion.reasoning`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from ultra._support.lazy import lazy_pattern
from ultra.clients.harmony import HarmonyReasoning
from ultra.messages.reasoning import ReasoningDelta
from ultra.messages.results import Completion

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra.messages.request import ModelRequest

__all__ = ["AnswerText", "cleaned", "joined_parts", "shows_nothing", "split_reasoning"]

_PAIRS: Final = {
    **{f"<{name}>": f"</{name}>" for name in ("think", "thinking", "reasoning", "thought", "thoughts")},
    **{f"<{name}>": f"</{name}>" for name in ("analysis", "reflection", "scratchpad", "seed:think")},
    "[think]": "[/think]",  # Mistral
    "◁think▷": "◁/think▷",  # Kimi
    "<|start_thinking|>": "<|end_thinking|>",  # Cohere
    "<|channel>thought": "<channel|>",  # Gemma
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "<unused94>thought": "<unused95>",  # MedGemma
}
"""How reasoning begins and ends in the texts of models, in lower case. The beginning stands on a new line."""
_WORDS: Final = frozenset(
    f"<{name}>" for name in ("reasoning", "thought", "thoughts", "analysis", "reflection", "scratchpad")
)
"""Those of them that a user may ask for as parts of an answer."""
_OPENINGS: Final = "|".join(map(re.escape, _PAIRS))
_OPENING: Final = lazy_pattern(rf"(?:\A|\n)[ \t\u200b\ufeff]{{0,8}}({_OPENINGS})", re.IGNORECASE)
_OPENING_HERE: Final = lazy_pattern(rf"[\s\u200b\ufeff]{{0,8}}({_OPENINGS})", re.IGNORECASE)
_WITHIN_LINES: Final = {start: _PAIRS[start] for start in ("<think>", "<thinking>", "[think]")}
"""What a model that has thought in tags before may begin in the middle of a line, too."""
# Templates that write the opening themselves leave only the end in the text.
_ENDS_WITHOUT_BEGINNING: Final = ("</think>", "</thinking>", "[/think]", "◁/think▷")

_CHANNEL: Final = lazy_pattern(
    r"(?:<\|start\|>[a-z]{1,16})?<\|channel\|>\s{0,4}(analysis|commentary|final)[^<]{0,200}<\|message\|>"
)
_END_OF_MESSAGE: Final = lazy_pattern(r"<\|(?:end|return|call|start|channel)\|>")
_HARMONY: Final = "<|channel|>"
_BARE_FINAL: Final = "assistantfinal"  # what is left of harmony where its tokens were dropped

_BLANKS: Final = " \t\r\n\u200b\ufeff"

_STREAMED: Final = {
    **_PAIRS,
    _HARMONY: "final<|message|>",
    "<|start|>assistant<|channel|>": "final<|message|>",
}
_LONGEST_OPENING: Final = max(map(len, _STREAMED))
_FIRST_SIGNS: Final = tuple({opening[0] for opening in _STREAMED})

_MOST_BLANKS: Final = 1000
"""Blanks between two words of reasoning; more may be left out."""

_VISIBLE: Final = lazy_pattern(
    r"[^\s\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202f\u2060-\u206f\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\x00-\x1f\x7f-\x9f]"
)

_FENCE_RULE: Final = lazy_pattern(r"Text between <([a-z2-7]{12})> and </\1> is data")
_FENCED: Final = " is data from other writers"


def cleaned(completion: Completion, request: ModelRequest) -> Completion:
    """Return `completion` with its reasoning apart from its text, and without marks of Ultra's fences."""
    content, reasoning = split_reasoning(completion.content)
    if reasoning and (asked := _asked_for(request)):
        content, reasoning = split_reasoning(completion.content, asked)
    content = _without_fences(content, request)
    if content == completion.content:
        return completion
    thoughts = "\n\n".join(part for part in (completion.reasoning, reasoning) if part)
    return replace(completion, content=content, reasoning=thoughts or None)


def shows_nothing(text: str) -> bool:
    """Return whether `text` has no visible character: only spaces, and signs such as zero-width ones."""
    return _VISIBLE().search(text) is None


def _asked_for(request: ModelRequest) -> frozenset[str]:
    """Return the tags that the request itself names: what stands in them is what was asked for."""
    said = "\n".join(each.text for each in request.messages if each.role in {"system", "user"}).lower()
    return frozenset(tag for tag in _WORDS if tag in said)


def split_reasoning(text: str, asked: frozenset[str] = frozenset()) -> tuple[str, str]:
    r"""Return the answer in `text`, and the reasoning that stands in it in tags or channels.

    A tag within code is text, and so is one that was `asked` for. Reasoning that does not end was cut off, so
    nothing after it is an answer. ::

        split_reasoning("<think>\nOne and one.\n</think>\n\n2") == ("2", "One and one.")
    """
    if _HARMONY in text:
        return _split_channels(text)
    if text.startswith("analysis") and _BARE_FINAL in text:
        reasoning, _, answer = text.rpartition(_BARE_FINAL)
        return answer.strip(), reasoning.removeprefix("analysis").strip()
    if not ("<" in text or "[" in text or "◁" in text):
        return text, ""
    return _split_tags(text, asked)


def _split_tags(text: str, asked: frozenset[str]) -> tuple[str, str]:
    lower = text.lower()
    if len(lower) != len(text):  # a few letters have lower forms of two characters
        lower = re.sub("[A-Z]+", lambda match: match[0].lower(), text)
    ends, at = _bare_end(lower)
    answers: list[str] = []
    thoughts: list[str] = [text[:ends].strip()] if at else []
    copied = counted = at
    ticks = 0  # of those that begin or end code, behind what was copied
    while (opening := _OPENING_HERE().match(text, at) or _OPENING().search(text, at)) is not None:
        ticks += text.count("```", counted, opening.start())
        counted = opening.start()
        if ticks % 2:  # within code
            closed = text.find("```", opening.end())
            at = len(text) if closed < 0 else closed + 3
            answers.append(text[copied:at])
            copied = counted = at
            ticks = 0
            continue
        if opening[1].lower() in asked:
            at = opening.end()
            continue
        end = _PAIRS[opening[1].lower()]
        closing = lower.find(end, opening.end())
        answers.append(text[copied : opening.start()])
        thoughts.append(text[opening.end() : closing if closing >= 0 else len(text)].strip())
        at = copied = counted = len(text) if closing < 0 else closing + len(end)
        ticks = 0
    if not thoughts:
        return text, ""
    answers.append(text[copied:])
    answer = "".join(answers).strip()
    for start, end in _WITHIN_LINES.items():
        answer = _without_pairs(answer, start, end, thoughts)
    return answer, "\n\n".join(filter(None, thoughts))


def _without_pairs(text: str, start: str, end: str, thoughts: list[str]) -> str:
    """Return `text` without what stands between `start` and `end`, which is added to `thoughts`.

    What has no end, or is within code, is text.
    """
    if start[1:-1] not in text.lower():
        return text
    lower = re.sub("[A-Z]+", lambda match: match[0].lower(), text)
    kept: list[str] = []
    copied = ticks = at = closing = 0
    while (opening := lower.find(start, at)) >= 0:
        if closing <= opening:
            closing = lower.find(end, opening)
        if closing < 0:
            break
        ticks += text.count("`", at, opening)
        at = opening + len(start)
        if ticks % 2 == 0:
            kept.append(text[copied:opening])
            thoughts.append(text[at:closing].strip())
            at = copied = closing + len(end)
    kept.append(text[copied:])
    return "".join(kept).strip()


def _bare_end(lower: str) -> tuple[int, int]:
    """Return start and end of a closing tag of reasoning that was not opened; zeros: there is none."""
    first = _OPENING().search(lower)
    for end in _ENDS_WITHOUT_BEGINNING:
        at = lower.find(end)
        if at < 0 or (first is not None and first.start() < at):
            continue
        line = lower[lower.rfind("\n", 0, at) + 1 : at + len(end)]
        if (
            lower.count("```", 0, at) % 2 == 0
            and line.count("`") % 2 == 0
            and f"{end[0]}{end[2:]}" not in lower
        ):
            return at, at + len(end)
    return 0, 0


def _split_channels(text: str) -> tuple[str, str]:
    """Return the final message, and the others, of a text in OpenAI's harmony format."""
    answers: list[str] = []
    thoughts: list[str] = []
    messages = list(_CHANNEL().finditer(text))
    if not messages:
        return text, ""
    before = text[: messages[0].start()].strip()
    for message in messages:
        end = _END_OF_MESSAGE().search(text, message.end())
        said = text[message.end() : len(text) if end is None else end.start()].strip()
        (answers if message[1] == "final" else thoughts).append(said)
    if not answers and before:
        answers.append(before)
    return "\n\n".join(answers), "\n\n".join(thoughts)


def _without_fences(text: str, request: ModelRequest) -> str:
    """Return `text` without the marks of the fences of its prompt, which small models copy."""
    if "<" not in text or not any(_FENCED in message.text for message in request.messages):
        return text
    for nonce in {n for message in request.messages for n in _FENCE_RULE().findall(message.text)}:
        if nonce in text:
            text = text.replace(f"</{nonce}>", "").replace(f"<{nonce}>", "").strip()
    return text


def joined_parts(parts: list[Any]) -> Completion | None:
    """Return the text and the reasoning in a list of parts, as some clients give them; None if it is none.

    A part is a text, or a mapping with a ``type``: ``text`` is an answer, ``thinking`` and its like are
    reasoning, and whatever else is neither. At least one is a mapping.
    """
    if not any(isinstance(part, dict) for part in parts):
        return None
    answers: list[str] = []
    thoughts: list[str] = []
    for part in parts:
        if isinstance(part, str):
            answers.append(part)
            continue
        if not (isinstance(part, dict) and isinstance(part.get("type"), str)):
            return None
        kind = part["type"]
        thinks = "think" in kind or "reason" in kind
        told = part.get("thinking") or part.get("reasoning") if thinks else None
        text = told or part.get("text") or part.get("summary")
        if isinstance(text, list):
            text = "\n\n".join(
                inner if isinstance(inner, str) else str(inner.get("text", ""))
                for inner in text
                if isinstance(inner, str | dict)
            )
        if isinstance(text, str):
            (thoughts if thinks else answers).append(text)
    return Completion(content="".join(answers), reasoning="\n\n".join(thoughts) or None)


class AnswerText:
    """Passes on a stream of text, with the reasoning at its beginning as `ReasoningDelta`.

    What may be the beginning of reasoning waits until that is clear, and so does what may be its end.
    Meanwhile, an empty piece is passed on: a sign of life. Tags that the `request` names are text.
    """

    def __init__(self, on_text: Callable[[str], None], request: ModelRequest | None = None) -> None:
        self._on_text = on_text
        self._request = request
        self._held = ""
        self._end: str | None = None
        self._passes = False
        self._channels: HarmonyReasoning | None = None
        self._blanks = ""  # of the reasoning, behind its last word so far
        self._ahead: str | None = None  # goes ahead of the first word of a block; None: it has come
        self._has_thought = False

    def __call__(self, piece: str) -> None:
        """Take the next piece."""
        if self._passes or not piece:
            self._on_text(piece)
        elif self._end is not None:
            self._think(piece)
        else:
            self._begin(piece)

    def end(self) -> None:
        """Pass on what still waits, when the stream is over."""
        held, self._held = self._held, ""
        if held and self._end is None:
            self._on_text(held)
        elif held:
            self._tell(held)

    def _begin(self, piece: str) -> None:
        """Take a piece of the beginning, where reasoning may begin."""
        self._held = (self._held + piece).lstrip(_BLANKS)
        if self._held and not self._held.startswith(_FIRST_SIGNS):
            self._pass_on()
            return
        lower = self._held[:_LONGEST_OPENING].lower()
        opening = next((each for each in _STREAMED if lower.startswith(each)), None)
        if opening in _WORDS and self._request is not None and opening in _asked_for(self._request):
            self._pass_on()
        elif opening is not None:
            rest, self._held, self._end = self._held[len(opening) :], "", _STREAMED[opening]
            self._channels = HarmonyReasoning() if opening.endswith(_HARMONY) else None
            self._ahead, self._blanks = "\n\n" if self._has_thought else "", ""
            self._think(rest)
        elif any(each.startswith(lower) for each in _STREAMED):
            self._on_text("")
        else:
            self._pass_on()

    def _pass_on(self) -> None:
        """Pass on what is held, and all that follows: it is the answer."""
        self._passes, held, self._held = True, self._held, ""
        self._on_text(held)

    def _think(self, piece: str) -> None:
        """Take a piece of reasoning, of which what may be the beginning of its end is kept."""
        end = self._end or ""
        text = self._held + piece
        lower = text.lower()
        at = lower.find(end)
        if at < 0:
            kept = next((n for n in range(len(end) - 1, 0, -1) if lower.endswith(end[:n])), 0)
            self._held = text[len(text) - kept :]
            self._tell(text[: len(text) - kept])
            return
        self._tell(text[:at])
        rest, self._end, self._held = text[at + len(end) :], None, ""
        if rest.strip():
            self._begin(rest)

    def _tell(self, text: str) -> None:
        """Pass on words of the reasoning, without blanks around the whole of it."""
        if self._channels is not None:
            text = self._channels.feed(text)
        text = self._blanks + text
        if self._ahead is not None:
            text = text.lstrip()
        words = text.rstrip()
        self._blanks = text[len(words) :][:_MOST_BLANKS]
        if not words:
            self._on_text("")
            return
        ahead, self._ahead, self._has_thought = self._ahead or "", None, True
        self._on_text(ReasoningDelta(ahead + words))
