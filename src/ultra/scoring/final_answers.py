r"""The final answer within a text, in a normal form, so that equal answers are counted as one.

Scorers, strategies and graders share this reader. It looks for what models use to mark an answer, the
clearest mark first, and then for texts and last lines that are an answer by themselves.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from ultra._support.lazy import lazy_pattern
from ultra.scoring.normal_form import normal_form

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["FinalAnswer", "equal_answers", "final_answer", "read_answer"]

_LONGEST: Final = 4_000
"""Characters at the end of a text that are searched for anything but a field of JSON."""
_NEAR_END: Final = 400
"""Characters; what is told so near to the end goes before a last line that is bold or short."""
_LONGEST_SHORT: Final = 120
_MOST_WORDS: Final = 6
"""A text without a mark is an answer by itself up to so many words, or characters of Chinese."""
_MOST_TRIED: Final = 16
"""Places where a mark may stand, tried from the last one."""
_LONGEST_FIELD: Final = 400
_MOST_JSON: Final = 16_000
"""Characters at the end of a text that are searched for a field of JSON, and a quarter at its beginning."""

_FIELD: Final = lazy_pattern(r'"(?:final[_ ]?)?answer"\s{0,8}:\s{0,8}', re.IGNORECASE)
_STRING: Final = lazy_pattern(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_SCALAR: Final = lazy_pattern(r"\[[^\[\]{}]{0,200}\]|[-+\w.]{1,64}")
_ESCAPE: Final = lazy_pattern(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_TAGGED: Final = lazy_pattern(r"<answer>(.{1,400}?)</answer>", re.IGNORECASE | re.DOTALL)
_HASHES: Final = lazy_pattern(
    r"####[ \t]*(?:(?:final\s)?answer\s?[:=]\s?)?([^\s#][^\n]{0,200})", re.IGNORECASE
)
_FENCED: Final = lazy_pattern(r"```(?:text|txt|plain|plaintext)?[ \t]*\n[ \t]*([^\n`]{1,120})\n[ \t]*```")
"""A block of code that is a text of one line."""
_WORDS_THAT_TELL: Final = (
    "answer",
    "result",
    "solution",
    "option",
    "choice",
    "antwort",
    "réponse",
    "respuesta",
    "resposta",
    "risposta",
    "ответ",
    "答案",
    "答え",
    "정답",
)
_TOLD: Final = lazy_pattern(
    r"(?:s(?=\s(?:are|were)\b))?[\s*_`]{0,4}(?:(?:to|for)\s[^\n.:?=]{1,80}?\s)?"
    r"(?:[:=：][\s*_`]{0,4}|(?:is|was|are|would\s+be|must\s+be|ist|est|es|é|è|是|为|は)(?![a-z])"  # noqa: RUF001 - that colon is meant
    r"[\s*_`]{0,4}[:：]?[\s*_`]{0,4}){1,2}"  # noqa: RUF001 - the same
    r"([^\s*_`:][^\n]{0,200})",
    re.IGNORECASE,
)
_NO_ANSWER: Final = lazy_pattern(
    r"(?:not|that|as\s+follows|below|above|in\s+the|given\s+by|found\s+by|correct|wrong|incorrect)\b",
    re.IGNORECASE,
)
_LAST_BOLD: Final = lazy_pattern(r"\*\*([^*\n]{1,120})\*\*[.!]?|__([^_\n]{1,120})__[.!]?")
_BOLD_AT_END: Final = lazy_pattern(r"\*\*([^*\n]{1,80})\*\*[^\w\n]{0,3}$")
_ONE_BOLD: Final = 2
"""Marks of a line of which one part is bold."""
_DENIES: Final = lazy_pattern(r"\b(?:not|neither|never|no)\b|n['\u2019]t\b", re.IGNORECASE)
_ITEM: Final = lazy_pattern(r"\s{0,8}(?:[-*\u2022]|\d{1,2}[.)])\s+(?=\S)")
_CLOSING: Final = lazy_pattern(
    r"[?]$|\b(?:hope|help|let me know|question|feel free|thanks|cheers|enjoy)", re.IGNORECASE
)
_UNSPACED: Final = lazy_pattern("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
_CHOICE_FIRST: Final = lazy_pattern(r"[*(\[]{0,3}([A-J])(?:[)\].:]+\**|\*\*[.:)]?)(?=\s|$)")
_NUMBER: Final = lazy_pattern(r"(?<![\w.])([-+\u2212]?[$€£]?\d[\d,]{0,40}(?:\.\d{1,40})?(?:/\d{1,20})?)")
_IS: Final = lazy_pattern(r" (?:is|are|was|were) ")
_ARTICLE: Final = lazy_pattern(r"^(?:the|a|an) ")
_WORD: Final = lazy_pattern(r"\w+")


class FinalAnswer(Struct, frozen=True, gc=False):
    """The final answer of a text.

    Attributes:
        value: its normal form, without a unit.
        unit: the normal form of the unit behind a number; empty if there is none.
        marked: whether the text marks it as its answer, or is nothing but it. What is only the last number
            of a text is not marked.
    """

    value: str
    unit: str = ""
    marked: bool = True


def final_answer(text: str) -> str | None:
    r"""Return the final answer of `text` in a normal form; None if none is found.

    It is, in this order: ``<answer>…</answer>``, a JSON field such as ``"answer"``, ``\boxed{…}``,
    ``#### …``, "the answer is …", a text that is short, a last line that is bold or short, a letter of a
    choice at the beginning, and the last number of the last line. Numbers lose their thousands separators,
    trailing zeros and units, words their case, articles and punctuation, LaTeX its commands. At most the
    last 4,000 characters of the text are read closely, in linear time. ::

        final_answer("So the answer is **1,024.0 km**.") == "1024"
    """
    found = read_answer(text)
    return None if found is None else found.value


def read_answer(text: str) -> FinalAnswer | None:
    """Return the final answer of `text`, its unit, and whether it is marked; None if none is found."""
    end = text[-_LONGEST:].strip().rstrip(" …\u200b")
    if not end:
        return None
    found = _marked(text, end)
    if found is not None:
        return _answer(found, marked=True)
    last_line = end[end.rfind("\n") + 1 :]
    if (item := _ITEM().match(last_line)) is not None:  # whose number is none of the answer
        last_line = last_line[item.end() :]
    choice = _CHOICE_FIRST().match(text[:200].lstrip()[:16])
    if choice is not None and not _is_first_of_list(choice[1], text):
        return FinalAnswer(choice[1])
    number = _last(_NUMBER(), last_line[-_NEAR_END:])
    return None if number is None else _answer(number, marked=False)


def equal_answers(texts: Sequence[str], question: str = "") -> list[str | None]:
    """Return a name for the final answer of each text, the same for equal answers; None where there is none.

    Numbers of different units differ; a number without a unit is taken for that with the one unit there is,
    where only one is named. Of a sentence such as "the capital of France is Paris", the part that is no part
    of the question is the answer; where the question does not tell, "A is B" and "B is A" are equal. ::

        equal_answers(["5 km", "5", "5 kilometers", "6 m"]) == ["5", "5", "5", "6"]
    """
    return names_of_equals([read_answer(text) for text in texts], question)


def names_of_equals(found: Sequence[FinalAnswer | None], question: str = "") -> list[str | None]:
    """Do what `equal_answers` does, for answers that have been read."""
    answers = dict.fromkeys(answer for answer in found if answer is not None)  # they are often the very same
    values = _values_of(answers, question)
    units: dict[str, set[str]] = {}
    for answer, value in values.items():
        if answer.unit:
            units.setdefault(value, set()).add(answer.unit)
    names = {
        answer: f"{value} {answer.unit}".rstrip() if len(units.get(value, ())) > 1 else value
        for answer, value in values.items()
    }
    return [None if answer is None else names[answer] for answer in found]


def _values_of(answers: Iterable[FinalAnswer], question: str) -> dict[FinalAnswer, str]:
    """Return the value of each answer; that of a sentence stands for all sentences of its two sides."""
    sides_of = {answer: None if answer.unit else _sides(answer.value) for answer in answers}
    asked: frozenset[str] | None = None
    said_first: dict[frozenset[str], str] = {}
    for answer, sides in sides_of.items():
        if sides is None or frozenset(sides) in said_first:
            continue
        if asked is None:
            asked = frozenset(_WORD().findall(question[-_LONGEST:].casefold()))
        new = [side for side in sides if not asked.issuperset(_WORD().findall(side))]
        said_first[frozenset(sides)] = new[0] if len(new) == 1 else answer.value
    return {
        answer: answer.value if sides is None else said_first[frozenset(sides)]
        for answer, sides in sides_of.items()
    }


def _sides(value: str) -> tuple[str, str] | None:
    """Return what a sentence says is the same; None for any other value."""
    match _IS().split(value):
        case [one, other] if one and other:
            return _ARTICLE().sub("", one), _ARTICLE().sub("", other)
    return None


# --- where it stands ------------------------------------------------------------------------------------


def _marked(text: str, end: str) -> str | None:
    """Return what `text`, whose last part is `end`, marks as its answer, or what is an answer by itself."""
    found = _last(_TAGGED(), end) if "<" in end else None
    found = found or _field(text) or _boxed(end) or (_hashed(end) if "####" in end else None)
    if found:
        return found
    told, near = _told(end)
    if told is not None and near:
        return told
    return _alone(end) or told


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    found = None
    for match in pattern.finditer(text):
        found = match[1]
    return found


def _hashed(text: str) -> str | None:
    """Return what stands behind the last ``####``, as in GSM8K, unless that is a heading of Markdown.

    It is one if text follows it, but for a number alone.
    """
    found = None
    for match in _HASHES().finditer(text):
        found = match
    if found is None:
        return None
    is_last = not text[found.end() :].strip()
    return found[1] if is_last or _NUMBER().fullmatch(found[1].strip(" *.$")) else None


def _field(text: str) -> str | None:
    """Return the value of the last JSON field ``"answer"``, in JSON that may be broken, too."""
    if len(text) > _MOST_JSON:
        text = f"{text[: _MOST_JSON // 4]}\n{text[-_MOST_JSON:]}"
    end = len(text)
    for _ in range(_MOST_TRIED):
        at = max(text.rfind('nswer"', 0, end), text.rfind('NSWER"', 0, end))
        if at < 0:
            return None
        match = _FIELD().match(text, text.rfind('"', max(0, at - 10), at + 1))
        if match is not None:
            value = _value(text, match.end())
            if value:
                return value
        end = at
    return None


def _value(text: str, start: int) -> str | None:
    string = _STRING().match(text, start, start + _LONGEST)
    if string is not None:
        value = _ESCAPE().sub(_unescaped, string[1]).strip()
        if len(value) <= _LONGEST_FIELD:
            return value
        return _marked("", value[-_LONGEST:])
    scalar = _SCALAR().match(text, start)
    return None if scalar is None or scalar[0] == "null" else scalar[0].strip("[]")


def _unescaped(match: re.Match[str]) -> str:
    """Return what an escape of JSON stands for; a command of LaTeX that nobody escaped stays as it is."""
    told, string = match[1], match.string
    if told[0] == "u" and len(told) > 1:
        return chr(int(told[1:], 16))
    if told in "nrtbf" and string[match.end() : match.end() + 1].isalpha():
        return " " if told == "n" and not string.startswith(("eq", "ot", "u"), match.end()) else match[0]
    return {"n": "\n", "r": "\n", "t": " ", "b": "", "f": ""}.get(told, told if told in '"\\/' else match[0])


def _boxed(text: str) -> str | None:
    r"""Return what stands in the last ``\boxed{}``, whose braces may hold other braces."""
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    begin = text.index("{", start) + 1
    depth = 1
    for index in range(begin, len(text)):
        depth += (text[index] == "{") - (text[index] == "}")
        if not depth:
            return text[begin:index].strip() or None
    return None


def _told(end: str) -> tuple[str | None, bool]:
    """Return what the text says its answer is, and whether it says so near its end."""
    lower = end.lower()
    if len(lower) != len(end):  # a few letters have lower forms of two characters
        end = lower
    best, found = -1, None
    for word in _WORDS_THAT_TELL:
        before = len(lower)
        for _ in range(_MOST_TRIED):
            at = lower.rfind(word, 0, before)
            if at <= best:
                break
            match = _TOLD().match(end, at + len(word))
            told = None if match is None else _without_item(end, match)
            if told is not None and not _NO_ANSWER().match(told):
                best, found = at, told
                break
            before = at
    return found, len(end) - best <= _NEAR_END


def _without_item(end: str, told: re.Match[str]) -> str | None:
    """Return what a text tells, without the sign of an item; None: it is the first item of several."""
    found: str = told[1]
    item = _ITEM().match(found) if "\n" in told[0][: -len(found)] else None
    if item is None:
        return found
    next_line = end.find("\n", told.end())
    is_first = (
        next_line >= 0 and _ITEM().match(end[next_line : next_line + _LONGEST_SHORT].lstrip()) is not None
    )
    return None if is_first else found[item.end() :]


def _is_first_of_list(letter: str, text: str) -> bool:
    """Return whether `letter` begins the first of several sections, as ``A. …``, ``B. …``."""
    following = "II" if letter == "I" else chr(ord(letter) + 1)
    return re.search(rf"\n[ \t]{{0,8}}[*(\[#]{{0,4}}{following}[)\].:*]", text[:_MOST_JSON]) is not None


def _alone(end: str) -> str | None:
    """Return the answer that the text is as a whole, or its last line."""
    if end.endswith("```") and (fenced := _FENCED().search(end[-_NEAR_END:])) is not None:
        end = fenced[1]
    before, _, line = end.rpartition("\n")
    line = line.strip()
    if (item := _ITEM().match(line)) is not None:
        if _ITEM().match(before[before.rstrip().rfind("\n") + 1 :]) is not None:
            return None  # the last of several
        line = line[item.end() :]
    bold = _LAST_BOLD().fullmatch(line)
    if bold is not None:
        return bold[1] or bold[2]
    if len(line) > _LONGEST_SHORT:
        return None
    bold = _BOLD_AT_END().search(line)
    if bold is not None and line.count("**") == _ONE_BOLD and not _DENIES().search(line):
        return bold[1]
    if _words(line) <= _MOST_WORDS and not _CLOSING().search(line):
        return line
    return None if bold is None else bold[1]


def _words(line: str) -> int:
    return len(line.split()) + len(_UNSPACED().findall(line))


def _answer(found: str, *, marked: bool) -> FinalAnswer | None:
    value, unit = normal_form(found)
    return FinalAnswer(value, unit, marked) if value else None
