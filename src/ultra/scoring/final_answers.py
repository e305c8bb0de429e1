"""The final answer within a text, in a normal form, so that a vote can count equal answers as one."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["final_answer"]

_LONGEST: Final = 4_000
"""Characters at the end of a text that are searched, so that the time is bounded."""

_LONGEST_SHORT: Final = 80
"""Characters; a text of at most so many is a short answer as a whole, a last line of half as many."""

_TAGGED: Final = re.compile(r"<answer>(.{1,400}?)</answer>", re.IGNORECASE | re.DOTALL)
_HASHES: Final = re.compile(r"^####[ \t]*(\S.{0,200})$", re.MULTILINE)
_TOLD: Final = re.compile(
    r"\b(?:final\s+answer|answer|solution|result)\b\s{0,3}(?:is|:|=)+\s{0,3}(\S[^\n]{0,200})", re.IGNORECASE
)
_BOLD: Final = re.compile(r"\*\*([^*\n]{1,80})\*\*")
_CHOICE: Final = re.compile(r"\(?([A-Za-z])\)?[.):]?(?:\s.*)?", re.DOTALL)
_NUMBER: Final = re.compile(r"[-+\u2212]?\d[\d,\u00a0\u202f' ]*(?:\.\d+)?(?:[eE][-+]?\d+)?|[-+\u2212]?\.\d+")
_SPACES: Final = re.compile(r"[\s\u00a0]+")
_ARTICLES: Final = re.compile(r"^(?:the|a|an)\s+")
_LATEX: Final = re.compile(r"\\(?:text|mathrm|mathbf|boxed|left|right|displaystyle|[,;! ])\s?|[{}$]")


def final_answer(text: str) -> str | None:
    r"""Return the final answer of `text` in a normal form; None if none is found.

    It is, in this order: ``<answer>…</answer>``, ``\boxed{…}``, a line that begins with ``####``, "the answer
    is …", a text that is short, and a last line that is bold or short. Numbers lose their thousands
    separators and trailing zeros, words their case, articles and punctuation. At most the last 4,000
    characters of the text are read, in linear time. ::

        final_answer("So the answer is **1,024.0**.") == "1024"
    """
    end = text[-_LONGEST:].strip()
    if not end:
        return None
    found = _last(_TAGGED, end) or _boxed(end) or _last(_HASHES, end) or _last(_TOLD, end) or _short(end)
    return _normalized(found) if found is not None else None


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    found = None
    for match in pattern.finditer(text):
        found = match[1]
    return found


def _boxed(text: str) -> str | None:
    r"""Return what stands in the last ``\boxed{}``, whose braces may hold other braces."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 1, start + len("\\boxed{")
    for index in range(begin, len(text)):
        depth += (text[index] == "{") - (text[index] == "}")
        if not depth:
            return text[begin:index] or None
    return None


def _short(text: str) -> str | None:
    if len(text) <= _LONGEST_SHORT and "\n" not in text:
        return text
    line = text.rpartition("\n")[2].strip()
    bold = _BOLD.fullmatch(line.rstrip("."))
    if bold is not None:
        return bold[1]
    return line if len(line) <= _LONGEST_SHORT // 2 else None


def _normalized(found: str) -> str | None:
    text = _LATEX.sub(" ", found).replace("*", "").replace("`", "")
    text = _SPACES.sub(" ", text).strip().strip(".,;:!?\"'()[]").strip()
    if not text:
        return None
    choice = _CHOICE.fullmatch(found.strip().strip("*`\"'"))
    if choice is not None and (
        len(text) == 1 or found.strip().strip("*`\"'").lstrip("(")[1:2] in (")", ".", ":")
    ):
        return choice[1].upper()
    number = _NUMBER.match(text)
    if number is not None:
        value = re.sub(r"[,\u00a0\u202f' ]", "", number[0]).replace("\u2212", "-").lstrip("+")
        rest = text[number.end() :].strip().lower()
        if "." in value and "e" not in value.lower():
            value = value.rstrip("0").rstrip(".")
        return f"{value} {rest}".strip() if rest and not rest[0].isdigit() and "/" in rest[:1] else value
    return _ARTICLES.sub("", text.casefold())
