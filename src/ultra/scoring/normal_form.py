"""The normal form of a short answer: what is left when all is gone that does not change its meaning."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final
from unicodedata import normalize

from ultra._support.lazy import lazy_pattern

__all__ = ["normal_form"]

_LONGEST: Final = 400
_MOST_DIGITS: Final = 60

_DASHES: Final = str.maketrans({"\u2212": "-", "\u2013": "-", "\u2010": "-", "\u2011": "-", "\uff0d": "-"})
_QUOTES: Final = str.maketrans(
    dict.fromkeys('`"\u201c\u201d\u201e\u00ab\u00bb\u2018\u2019\u200b\u200c\u200d\u2060\ufeff', "")
)
_POWER: Final = lazy_pattern(r"(?<=[\w)])\*\*(?=[\w(-])")
_EMPHASIS: Final = lazy_pattern(r"\*{2,}|^\s*\*\s|\s\*\s*$|(?<![^\s(])\*(?=\S)|(?<=\S)\*(?=[\s.,;:!?)]|$)")
"""Asterisks of Markdown, and none that multiply."""
_SPACES: Final = lazy_pattern(r"[\s\u00a0\u202f]+")

# One sign for what is written by several.
_SUPERSCRIPTS: Final = str.maketrans(
    "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b", "0123456789-"
)
_SUPERSCRIPT: Final = lazy_pattern(r"(?<=[\w)\]])([\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207b]+)(?=(\d)?)")
_VULGAR: Final = lazy_pattern(r"[\u00bc-\u00be\u2150-\u215e]")  # such as ½
_ROOT_SIGN: Final = lazy_pattern(r"\u221a\s?(\w+|\([^()]*\))")
_BRACES: Final = lazy_pattern(r"([_^])\{(-?(?:\d+|\w))\}(?!\d)|(_)\{(\w+)\}(?!\w)")
"""Those that change nothing: e^{2x} is not e^2x, which is e^{2}x, and 2^{3}5 is not 2^35."""
_NEGATIVE: Final = lazy_pattern(r"-[\w.]+")
_COMMAND: Final = lazy_pattern(r"\\[a-zA-Z]+")

# LaTeX
_WRAPPERS: Final = lazy_pattern(
    r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|operatorname|boxed|fbox|mbox|hbox)\s{0,3}\{([^{}]{0,200})\}"
)
_SPACING_COMMANDS: Final = lazy_pattern(r"\\(?:q?quad(?![a-zA-Z])| )|~")
_EMPTY_COMMANDS: Final = lazy_pattern(
    r"\\(?:(?:left|right|displaystyle|big|Big|limits)(?![a-zA-Z])|[,;:!%$()\[\]])|\^\{?\\circ\}?|\$"
)
_FRACTION: Final = lazy_pattern(
    r"\\[dt]?frac\s{0,3}(?:\{([^{}]{1,100})\}\s{0,3}\{([^{}]{1,100})\}|(\d)\s{0,3}(\d))"
)
_ROOT: Final = lazy_pattern(r"\\sqrt\s{0,3}(?:\{([^{}]{1,100})\}|(\w))")
_LATEX: Final = frozenset("\\$^{")
_COMMANDS: Final = {
    "\\cdot": "*",
    "\\times": "*",
    "\\div": "/",
    "\\pi": "pi",
    "π": "pi",
    "\\infty": "inf",
    "∞": "inf",
    "\\pm": "±",
    "\\leq": "<=",
    "\\geq": ">=",
    "\\le": "<=",
    "\\ge": ">=",
    "≤": "<=",
    "≥": ">=",
    "\\neq": "!=",
    "\\cup": "\u222a",
    "\u00d7": "*",
}

_CHOICE: Final = lazy_pattern(
    r"(?:(?:option|choice|answer|letter)\s{1,3})?(?:\(([A-Za-z])\)|\[([A-Za-z])\]|([A-Z])[.):]"
    r"|([a-z])\)|([A-Z])(?=$|[,;]|\s[-(]|\s(?:because|since|as|is)\b))(?=$|[\s.,;:])",
)
_INITIALS: Final = lazy_pattern(r"[A-Z]\.\s{0,2}[A-Z]\b")
"""Of a name, such as J. K. Rowling, and no letter of a choice with what it says."""
_CHOICES: Final = lazy_pattern(
    r"(?:(?:options?|choices?|answers?|letters?)\s{1,3})?"
    r"([(\[]?[A-J][)\]]?(?:(?:\s?[,;/&]\s?(?:(?:and|&)\s)?|\sand\s)[(\[]?[A-J][)\]]?){1,9})",
    re.IGNORECASE,
)
_BETWEEN_CHOICES: Final = lazy_pattern(r"[^A-J]+|AND")
_OPTION: Final = lazy_pattern(r"(?:option|choice|letter)\s{1,3}\(?([A-Za-z])\)?[.):]?$", re.IGNORECASE)
_YES_OR_NO: Final = lazy_pattern(
    r"(yes|no|true|false)(?!\.\s?\d+$)(?=$|[,.;:!]|\s(?:because|since|it|the|they|that)\b)"
)
_LEAD: Final = lazy_pattern(
    r"^(?:(?:so|thus|therefore|hence|then)\b,?\s{1,3})?(?:it\s{1,3}is|it's|this\s{1,3}is|that's|that\s{1,3}is|they\s{1,3}are"
    r"|there\s{1,3}are|there\s{1,3}is|we\s{1,3}(?:get|have)|approximately|about|roughly|exactly|equal\s{1,3}to"
    r"|definitely|clearly|simply|probably|most\s{1,3}likely)\s{1,3}",
)
_ARTICLES: Final = lazy_pattern(r"^(?:the|a|an)\s+(?!(?:or|and)\b)(?=[\w$€£¥(\\])")
_VARIABLE: Final = lazy_pattern(r"^[a-z](?:\([a-z]\))?\s{0,3}(?:=|\\in(?![a-z])|\u2208)\s{0,3}(?=\S)")
# Behind one or two letters that are no unit, a point is that of an abbreviation: J. K. Rowling, St. Louis.
_POINT: Final = (
    r"(?:(?<!\b[^\W\d])(?<!\b[^\W\d]{2})(?<!\bmrs)(?<!\bprof)|(?<=\d\s[^\W\d])|(?<=\d\s[^\W\d]{2}))\.(?=\s)"
)
_SENTENCE_END: Final = lazy_pattern(
    rf"{_POINT}|[!?](?=\s)|,?\s(?=(?:because|since|which|where|as)\s)|;\s(?!-?\d)|\s\u2014\s"
    r"|\s-\s(?=[^\W\d]{2})(?!(?:sqrt|sin|cos|tan|log|ln|exp|pi)\b)|\s\((?=[a-z])"
)
_MINUS: Final = lazy_pattern(r"^(?:minus|negative)\s+(?=[$€£¥]?\d)")
_NAME: Final = lazy_pattern(r"^\S*\d\S*\s+([A-Z][a-z].*)")
"""A number and words that begin with a capital letter."""
_NUMBER: Final = lazy_pattern(
    r"([-+]?)\s?(?:[$€£¥]|usd\s?|rs\.?\s?)?\s?(\d{1,3}(?:[,'\s]\d{3})+(?!\d)|\d{1,60}|(?=\.\d))(\.\d{1,60})?(?:e([-+]?\d{1,3}))?"
)
_MONTH: Final = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\b"
)
_GOES_ON: Final = lazy_pattern(
    rf"\s?(?:{_MONTH}|(?:[^\W\d]{{1,20}}\s)?(?:and|or|to|und|oder|et|ou|y|o)\s(?:[a-z]\s?=\s?)?"
    r"(?:[-+$€£(]{0,2}\d|a\s(?:half|quarter|third)\b))"
)
"""What shows that a number is only the first of several, or part of one, or of a date."""
_NEXT: Final = lazy_pattern(r"\s?(\S{1,20})\s\d")
"""A unit and another number, as in "2 hours 30 minutes"."""
_TIMES_TEN: Final = lazy_pattern(r"\s?[x*]\s?10\s?\^\s?[({]?([-+]?\d{1,3})[)}]?")
"""What makes a number of 5 x 10^3."""
_OVER: Final = lazy_pattern(r"\s?/\s?(\d{1,30})(?![\d.])")
_MIXED: Final = lazy_pattern(r"\s(\d{1,6})/(\d{1,6})(?![\d.])")
_SENTENCE: Final = 4
_ANY_NUMBER: Final = lazy_pattern(
    r"(?<![\w.,/])[-+]?[$€£]?\d[\d,]{0,40}(?:\.\d{1,40})?(?:/\d{1,20})?%?(?![\w/])"
)
_OPERATORS: Final = lazy_pattern(r"\s?([\\^_=+*/<>{}()\[\],;|±\u222a-])\s?")
_DECIMAL_COMMA: Final = lazy_pattern(r"([-+]?\d{1,60}),(\d{1,2})(?=$|\s?[%€]|\s[a-z])")
_PUNCTUATION: Final = " .,;:!?…。！？、"  # noqa: RUF001 - these signs are meant

_NUMBERS: Final = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    " seventeen eighteen nineteen twenty"
)
_WORDS_OF_NUMBERS: Final = {word: str(number) for number, word in enumerate(_NUMBERS.split(" "))}
_UNITS: Final = {
    name: unit
    for unit, names in {
        "": "dollar dollars usd euro euros eur pound pounds gbp percent degrees degree units unit usd$",
        "km": "km kilometer kilometers kilometre kilometres kms",
        "m": "m meter meters metre metres",
        "cm": "cm centimeter centimeters centimetre centimetres",
        "mm": "mm millimeter millimeters millimetre millimetres",
        "mi": "mi mile miles",
        "ft": "ft foot feet",
        "in": "inch inches",
        "yd": "yd yard yards",
        "kg": "kg kgs kilogram kilograms kilo kilos",
        "g": "g gram grams",
        "mg": "mg milligram milligrams",
        "t": "ton tons tonne tonnes",
        "lb": "lb lbs",
        "oz": "oz ounce ounces",
        "l": "l liter liters litre litres",
        "ml": "ml milliliter milliliters millilitre millilitres",
        "s": "s sec secs second seconds",
        "ms": "ms millisecond milliseconds",
        "min": "min mins minute minutes",
        "h": "h hr hrs hour hours",
        "am": "am a.m",
        "pm": "pm p.m",
        "d": "day days",
        "week": "week weeks",
        "month": "month months",
        "year": "yr yrs year years",
        "cent": "cent cents",
        "thousand": "thousand k",
        "million": "million mio",
        "billion": "billion bn",
        "km/h": "km/h kph kmh",
        "mph": "mph",
        "m/s": "m/s",
        "c": "°c celsius",
        "f": "°f fahrenheit",
    }.items()
    for name in names.split()
}
"""The unit of each of its names; units that models mostly leave out are none."""


def normal_form(found: str) -> tuple[str, str]:
    r"""Return the normal form of a short answer, and the unit behind a number; empty if nothing is left.

    ::

        normal_form("**$1,024.50**") == ("1024.5", "")
        normal_form(r"\frac{1}{2} \text{ hours}") == ("0.5", "h")
        normal_form("(b) Paris") == ("B", "")
    """
    told = found[:_LONGEST].translate(_DASHES).translate(_QUOTES)
    if "*" in told:
        told = _EMPHASIS().sub("", _POWER().sub("^", told) if told.count("**") == 1 else told)
    text = _bare(_SPACES().sub(" ", told if told.isascii() else _one_sign(told)))
    if not text:
        signs = found.strip()
        return (signs, "") if signs and not any(map(str.isalnum, signs)) and not signs.isascii() else ("", "")
    if not (text.isascii() and _LATEX.isdisjoint(text)):
        text = _bare(_SPACES().sub(" ", _without_latex(text)))
    if chosen := _chosen(text):
        return chosen, ""
    told = text
    text = _bare(text.casefold())
    sentence = _VARIABLE().sub("", _LEAD().sub("", text))
    text = _ARTICLES().sub("", sentence)
    if len(text) == 1 and text.isalpha():
        return text.upper(), ""
    agreed = _YES_OR_NO().match(text)
    if agreed is not None:
        return agreed[1], ""
    text = _MINUS().sub("-", text)
    if (number := _number(text)) is not None:
        return number[0], number[1] or _named(told)
    return _number_within(sentence) or (_words(text), "")


def _chosen(text: str) -> str:
    """Return the letters of the choices that a text names; empty if it is no choice."""
    several = _CHOICES().fullmatch(text)
    if several is not None:
        return ",".join(filter(None, _BETWEEN_CHOICES().split(several[1].upper())))
    choice = None if _INITIALS().match(text) else _CHOICE().match(text) or _OPTION().match(text)
    if choice is None:
        return text.upper() if len(text) == 1 and text.isalpha() else ""
    letter: str = next(filter(None, choice.groups()))
    return letter.upper()


def _named(text: str) -> str:
    """Return what a number is a part of the name of, such as of "12 Angry Men"; empty if it is none."""
    name = _NAME().search(text)
    words = "" if name is None else _sentence(name[1].casefold())
    return "" if words.split(" ", 1)[0] in _UNITS else words


def _one_sign(text: str) -> str:
    """Return `text` with one sign for what Unicode writes by several: x², ½, √2, é."""
    text = _VULGAR().sub(lambda match: f" {normalize('NFKC', match[0]).replace(chr(0x2044), '/')}", text)
    text = _SUPERSCRIPT().sub(_power, text)
    return normalize("NFC", _ROOT_SIGN().sub(lambda match: f"sqrt({match[1].strip('()')})", text))


def _power(match: re.Match[str]) -> str:
    power = match[1].translate(_SUPERSCRIPTS)
    return f"^{power}" if match[2] is None else f"^({power})"


def _sentence(text: str) -> str:
    end = _SENTENCE_END().search(text)
    return _bare(text[: end.start()] if end is not None else text)


def _number_within(text: str) -> tuple[str, str] | None:
    """Return the only number of a sentence that affirms."""
    sentence = _sentence(text)
    if len(sentence.split()) < _SENTENCE or " not " in sentence:
        return None
    numbers = list(_ANY_NUMBER().finditer(sentence))
    if len(numbers) != 1 or _GOES_ON().match(sentence, numbers[0].end()):
        return None
    return _number(numbers[0][0])


def _words(text: str) -> str:
    words = _sentence(text)
    if words in _WORDS_OF_NUMBERS:
        return _WORDS_OF_NUMBERS[words]
    return _OPERATORS().sub(r"\1", words).replace("{", "(").replace("}", ")") or text


def _bare(text: str) -> str:
    """Return `text` without the punctuation around it; the point of .5 stays."""
    text = text.rstrip(_PUNCTUATION).lstrip(" ,;:!?…¿¡")
    return text if text[:1] == "." and text[1:2].isdigit() else text.lstrip(". ")


def _without_latex(text: str) -> str:
    for _ in range(3):  # commands within commands
        bare = _ROOT().sub(lambda match: f"sqrt({match[1] or match[2]})", text)
        bare = _FRACTION().sub(
            lambda match: f"{_numerator(match[1] or match[3])}/{_part(match[2] or match[4])}", bare
        )
        bare = _WRAPPERS().sub(r"\1", bare)
        if bare == text:
            break
        text = bare
    text = _EMPTY_COMMANDS().sub("", _SPACING_COMMANDS().sub(" ", text))
    for command, sign in _COMMANDS.items():
        if command in text:
            text = text.replace(command, sign)
    return _BRACES().sub(r"\1\2\3\4", text.replace("\\{", "{").replace("\\}", "}"))


def _numerator(text: str) -> str:
    return text if _NEGATIVE().fullmatch(text) else _part(text)


def _part(text: str) -> str:
    return text if text.replace(".", "").isalnum() or _COMMAND().fullmatch(text) else f"({text})"


def _number(text: str) -> tuple[str, str] | None:
    """Return the number that `text` begins with, if that and a unit is all there is to it."""
    text = _DECIMAL_COMMA().sub(r"\1.\2", text, count=1) if _DECIMAL_COMMA().match(text) else text
    match = _NUMBER().match(text)
    if match is None or not (match[2] or match[3]):
        return None
    rest = match.end()
    whole = re.sub(r"[,'\s]", "", match[2])[:_MOST_DIGITS]
    value = Fraction(f"{match[1]}{whole or 0}{match[3] or ''}e{match[4] or 0}")
    power, over, mixed = (pattern().match(text, rest) for pattern in (_TIMES_TEN, _OVER, _MIXED))
    if power is not None:
        value, rest = value * Fraction(f"1e{power[1]}"), power.end()
    elif over is not None and int(over[1]):
        value, rest = value / int(over[1]), over.end()
    elif mixed is not None and int(mixed[2]):
        part = Fraction(int(mixed[1]), int(mixed[2]))
        value, rest = value + (-part if match[1] == "-" else part), mixed.end()
    left = text[rest:]
    unit = left.strip(" .()")
    if unit and not left[0].isspace() and unit not in _UNITS and unit[0] not in "%°€£$¥":
        return None  # such as 2x, 3rd, 10:30, 1,5
    first = unit.split(" ", 1)[0].rstrip(".,;")
    if left[:1] in "+*=^<>,;:" and left:
        return None
    if left and left.lstrip()[:1] in tuple("+-*=^<>/([√π±\u222a"):
        return None
    following = _NEXT().match(left)
    if _GOES_ON().match(left) or (following is not None and following[1].rstrip(",") in _UNITS):
        return None
    return _printed(value), _UNITS.get(first, "")


def _printed(value: Fraction) -> str:
    """Return the number as a decimal if that is exact and short, else as a fraction."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    digits = 0
    scaled = value
    while scaled.denominator != 1:
        scaled *= 10
        digits += 1
    sign, number = "-" if scaled < 0 else "", str(abs(scaled.numerator))
    if not digits:
        return f"{sign}{number}"
    number = number.rjust(digits + 1, "0")
    return f"{sign}{number[:-digits]}.{number[-digits:]}"
