"""Errors in replies and events: the exception itself in its process, and as much as can be told elsewhere."""

from __future__ import annotations

import subprocess
import sys
import traceback
from dataclasses import dataclass
from typing import Any, Self

import msgspec
import pytest
import trio

from helpers.command_line import environment, programs
from helpers.value_types import there_and_back
from ultra.actors import Actor, Failure
from ultra.errors import AllAttemptsFailed, BadCall, ModelError, QuorumNotReached, RestartLimitExceeded
from ultra.errors.values import ErrorValue
from ultra.messages import Usage
from ultra.messages.results import Refusal
from ultra.supervisor import ActorSystem


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """An error with a traceback."""
    try:
        raise error from cause  # noqa: TRY301 - to get its traceback
    except BaseException as caught:  # noqa: BLE001 - it is returned
        return caught


def elsewhere(error: BaseException) -> Any:
    """The error that another process makes of this one."""
    arrived = there_and_back(ErrorValue.of(error), ErrorValue)
    assert arrived == ErrorValue.of(error)
    exception = arrived.exception
    assert exception is arrived.exception
    return exception


class PickyError(Exception):
    """Says another text than its arguments."""

    def __init__(self, code: int, *, where: object) -> None:
        super().__init__(code)
        self.code = code
        self.where = where

    def __str__(self) -> str:
        return f"code {self.code}"


class RudeError(Exception):
    """Cannot be told as text."""

    def __str__(self) -> str:
        raise ValueError("no")


def test_the_exception_itself_is_raised_in_its_own_process() -> None:
    error = raised(ModelError("down", kind="server"), cause=OSError("reset"))
    failure = Failure(error)  # type: ignore[arg-type]
    assert failure.error is error
    assert failure.error.__traceback__ is not None
    assert isinstance(failure.error.__cause__, OSError)


def test_an_error_of_ultra_arrives_with_its_attributes_and_causes() -> None:
    cause = raised(
        ModelError("slow down", provider="openai", kind="rate_limit", retry_after=2.0), OSError("x")
    )
    error = AllAttemptsFailed("llama", 3, cause, usage=Usage(input=7, output=5), cost=0.25)
    arrived = elsewhere(error)
    assert type(arrived) is AllAttemptsFailed
    assert (str(arrived), arrived.model_name, arrived.attempts) == (str(error), "llama", 3)
    assert (arrived.usage, arrived.cost) == (Usage(input=7, output=5), 0.25)
    told = arrived.__cause__
    assert isinstance(told, ModelError)
    assert (told.kind, told.retry_after, told.retryable, told.status) == ("rate_limit", 2.0, True, None)
    assert isinstance(told.__cause__, OSError)


def test_a_group_arrives_as_a_group_and_errors_read_their_own_from_it() -> None:
    limit = RestartLimitExceeded("/a", 1, 5.0, [ValueError("one"), KeyError("two")])
    arrived = elsewhere(limit)
    assert isinstance(arrived, RestartLimitExceeded)
    assert [repr(crash) for crash in arrived.crashes] == ["ValueError('one')", "KeyError('two')"]
    missed = QuorumNotReached("initial", 2, 0, [("a", "x"), ("b", "y")], [ValueError("x"), ValueError("y")])
    arrived = elsewhere(missed)
    assert isinstance(arrived, QuorumNotReached)
    assert arrived.failures == {"a": "x", "b": "y"}
    assert isinstance(arrived.__cause__, ExceptionGroup)


def test_notes_arrive() -> None:
    error = BadCall("no")
    error.add_note("try again")
    assert elsewhere(error).__notes__ == ["try again"]


@pytest.mark.parametrize(
    "error",
    [
        KeyError("name"),
        FileNotFoundError(2, "No such file"),
        StopIteration(3),
        TimeoutError(),
        ZeroDivisionError("x"),
    ],
)
def test_an_error_of_python_arrives_as_one_of_its_class(error: Exception) -> None:
    arrived = elsewhere(error)
    assert type(arrived) is type(error)
    assert (str(arrived), arrived.args) == (str(error), error.args)


def test_an_error_of_another_class_arrives_without_what_is_no_value() -> None:
    arrived = elsewhere(PickyError(7, where=object()))
    assert isinstance(arrived, PickyError)
    assert (str(arrived), arrived.code, arrived.where) == ("code 7", 7, None)


@pytest.mark.parametrize("error", [KeyError(object()), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x")])
def test_an_error_that_cannot_be_made_again_arrives_as_text(error: Exception) -> None:
    arrived = elsewhere(error)
    assert type(arrived) is RuntimeError
    assert str(arrived) == f"{type(error).__qualname__}: {ErrorValue.of(error).text}"


def test_a_class_that_the_other_process_has_not_loaded_arrives_as_text() -> None:
    data = msgspec.msgpack.encode(ErrorValue.of(PickyError(7, where="here")))
    code = (
        "import sys, msgspec; from ultra.errors.values import ErrorValue; "
        "print(repr(msgspec.msgpack.decode(sys.stdin.buffer.read(), type=ErrorValue).exception))"
    )
    command = [str(programs() / "python"), "-c", code]
    done = subprocess.run(command, env=environment(), input=data, capture_output=True, check=True)
    assert done.stdout.decode().strip() == "RuntimeError('PickyError: code 7')"


class HostileError(Exception):
    """Hides what it has."""

    @property
    def args(self) -> Any:  # type: ignore[override] # as a hostile class may
        raise ValueError("no")


def test_an_error_that_hides_its_arguments_is_told_by_its_class() -> None:
    error = HostileError("x")
    assert ErrorValue.of(error).exception is error
    assert "HostileError" in repr(elsewhere(error))


def test_an_error_whose_text_cannot_be_told_arrives() -> None:
    assert type(elsewhere(RudeError())) is RudeError


def test_causes_that_lead_back_are_told_once() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    arrived = elsewhere(first)
    assert str(arrived.__cause__) == "second"
    assert arrived.__cause__ is not None
    assert arrived.__cause__.__cause__ is None


def test_a_value_is_of_bounded_size() -> None:
    error: BaseException = ValueError("the first")
    for number in range(500):
        error = raised(RuntimeError(str(number)), cause=error)
    depth, cause = 0, elsewhere(error).__cause__
    while cause is not None:
        depth, cause = depth + 1, cause.__cause__
    assert depth == 31
    assert elsewhere(PickyError(1, where=[*range(10_000)])).where is None


class LoadedError(Exception):
    """Has whatever it is given as attributes."""

    def __init__(self, **attributes: object) -> None:
        super().__init__("loaded")
        vars(self).update(attributes)


LONG = "x" * 400_000


@pytest.mark.parametrize(
    "error",
    [
        ValueError(LONG),
        ValueError(*[LONG] * 9),
        KeyError(LONG),
        ExceptionGroup(LONG, [ValueError(LONG), ValueError(LONG)]),
        LoadedError(one=LONG),
        LoadedError(many=[LONG] * 200, deep=(LONG,) * 9),
        OSError(2, [LONG, 7, LONG]),
        LoadedError(named={f"{number}{LONG}": LONG for number in range(3)}),
        LoadedError(**{f"{number}_{LONG[:100_000]}": LONG for number in range(30)}),
        LoadedError(**{f"name{number}": "y" * 1000 for number in range(3000)}),
        LoadedError(refusal=Refusal(reason="refusal", words=LONG)),
        LoadedError(**{f"r{number}": Refusal(reason="refusal", words="z" * 9000) for number in range(900)}),
        ValueError(*[{f"{number:04}{LONG[:60]}": 1 for number in range(256)}] * 256),
        type(LONG * 6, (Exception,), {})("of a long name"),
    ],
    ids=[
        *(
            "text",
            "arguments",
            "text that quotes",
            "group",
            "attribute",
            "list",
            "list in arguments",
            "dictionary",
        ),
        *("names", "many attributes", "struct", "many structs"),
        *("many keys", "class"),
    ],
)
@pytest.mark.parametrize("causes", [0, 20])
def test_a_value_is_of_bounded_size_however_long_its_texts_are(error: Exception, causes: int) -> None:
    for _ in range(causes):
        error = raised(LoadedError(text=LONG), cause=error)  # type: ignore[assignment] # it is that error
    encoded = msgspec.msgpack.encode(ErrorValue.of(error))
    assert len(encoded) < 2_000_000
    arrived = elsewhere(error)
    assert len(str(arrived)) < 40_000


def test_a_text_that_is_cut_says_how_much_is_missing() -> None:
    arrived = elsewhere(ValueError("ab" * 10_000))
    assert type(arrived) is ValueError
    assert str(arrived) == "ab" * 8192 + "… (3,616 more characters)"
    assert ErrorValue.of(ValueError("ab" * 8192)).text == "ab" * 8192


@pytest.mark.parametrize("text", ["\ud800", "a\ud800b", "ä" * 3])
def test_any_text_can_be_told(text: str) -> None:
    assert str(elsewhere(BadCall(text))) == text.encode("utf-8", "replace").decode()


def test_names_that_no_encoding_has_arrive_in_another_form() -> None:
    arrived = elsewhere(LoadedError(**{"\ud800": Usage(input=1)}))
    assert vars(arrived)["?"] == Usage(input=1)
    nowhere = type("Nowhere", (Exception,), {"__module__": 5})
    assert str(elsewhere(nowhere("x"))) == "Nowhere: x"


def test_what_is_no_exception_is_a_type_error_for_the_asker_elsewhere_too() -> None:
    arrived: Any = there_and_back(Failure(KeyboardInterrupt()), Failure)  # type: ignore[arg-type]
    assert isinstance(arrived.error, TypeError)
    forged = Failure(ErrorValue(module="builtins", type="KeyboardInterrupt"))
    assert isinstance(forged.error, TypeError)


class Refuses(Actor):
    """Answers each message with the same `Failure`, which was made of a class."""

    failure = Failure(LookupError)

    async def receive(self, message: object) -> Failure:
        return self.failure


async def test_a_class_stands_for_a_new_exception_for_each_asker() -> None:
    errors: list[Exception] = []

    async def ask() -> None:
        try:
            await ref.ask(object())
        except LookupError as error:
            errors.append(error)

    async with ActorSystem() as system:
        ref = system.spawn(Refuses, name="refuses")
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)

    assert len({id(error) for error in errors}) == 3
    assert all(error.__context__ is None for error in errors)
    lengths = {len(traceback.extract_tb(error.__traceback__)) for error in errors}
    assert len(lengths) == 1  # none has the traceback of another asker
    assert type(there_and_back(Refuses.failure, Failure).error) is LookupError


# --- from bytes that anybody may have written ----------------------------------------------------------

CALLED: list[str] = []


class CodeError(Exception):
    """Has code of its own."""

    def __new__(cls, *_: object) -> Self:
        CALLED.append("new")
        return super().__new__(cls)

    def __init__(self, *args: object) -> None:
        CALLED.append("init")
        super().__init__(*args)

    def __setstate__(self, _: object) -> None:
        CALLED.append("setstate")


@dataclass
class Ordinary:
    """Is no error."""

    x: int

    def __post_init__(self) -> None:
        CALLED.append("post_init")


def read(**fields: object) -> ErrorValue:
    given = {"module": "ultra.errors", "type": "UltraError", "text": "x", "args": ["x"], **fields}
    return msgspec.msgpack.decode(msgspec.msgpack.encode(given), type=ErrorValue)


def test_bytes_call_no_code_of_a_class_that_they_name() -> None:
    CALLED.clear()
    error = read(module=__name__, type="CodeError").exception
    assert (type(error), str(error), error.args) == (CodeError, "x", ("x",))
    assert CALLED == []


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (__name__, "Ordinary"),
        ("ultra.errors", "UltraError"),
        ("ultra.config.file", "ConfigurationFile"),
        ("os", "_Env"),
    ],
)
def test_bytes_make_attributes_only_of_structs_of_ultra(module: str, name: str) -> None:
    CALLED.clear()
    error = read(attributes={"usage": {"x": 1}}, structs={"usage": [module, name]}).exception
    assert type(error).__name__ in {"UltraError", "RuntimeError"}
    assert not isinstance(vars(error).get("usage"), Ordinary | dict)
    assert CALLED == []


@pytest.mark.parametrize("name", ["MultiLLMOrchestrator", "errors.values.sys.modules", "", ".", "Any.x"])
def test_a_name_in_bytes_imports_nothing_and_makes_only_exceptions(name: str) -> None:
    code = (
        "import sys, msgspec, ultra; from ultra.errors.values import ErrorValue; before = {*sys.modules}; "
        f"error = ErrorValue(module='ultra', type={name!r}, text='x').exception; "
        "print(repr(error), {*sys.modules} - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode().strip() == f"RuntimeError({f'{name}: x'!r}) set()"


@pytest.mark.parametrize("nested", ["cause", "errors"])
def test_causes_and_groups_are_made_as_deep_as_they_are_told(nested: str) -> None:
    value = read(text="deepest")
    for number in range(900):
        value = ErrorValue(
            module="builtins",
            type="ValueError",
            text=str(number),
            args=[str(number)],
            **{nested: value if nested == "cause" else [value]},  # type: ignore[arg-type]
        )
    error: Any = value.exception
    depth = 0
    while (
        error := error.__cause__ if nested == "cause" else getattr(error, "exceptions", [None])[0]
    ) is not None:
        depth += 1
    assert depth == 32
