"""Every error pickles and copies, whatever it carries."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING

import pytest

from ultra import errors
from ultra.errors import ModelError, UltraError, text_of, title_of

if TYPE_CHECKING:
    from collections.abc import Callable

CAUSE = ValueError("boom")


class UntellableError(Exception):
    """Fails when it is asked for its text."""

    def __str__(self) -> str:
        raise RuntimeError("broken")


def _all() -> list[errors.UltraError]:
    return [
        errors.ActorCrashed("/a", CAUSE, 2),
        errors.ActorDown("/a", CAUSE),
        errors.ActorStopped("/a"),
        errors.ActorUnresponsive("/a"),
        errors.AllAttemptsFailed("m", 4, CAUSE),
        errors.AskTimeout("/a", 1.0),
        errors.BadCall("bad"),
        errors.CircuitOpen("m", 3.0),
        errors.ClientCrashed("its process died"),
        errors.ConfigError("wrong"),
        errors.DeadlineExceeded("late"),
        errors.IdempotencyConflict("key", "run"),
        errors.InboxFull("/a", 3, "message"),
        errors.JournalDamaged("run", CAUSE),
        errors.JournalUnavailable("runs.db", CAUSE),
        errors.LoopUnavailable("ended"),
        errors.MissingExtra("x", "redis"),
        errors.ModelError("no", provider="openai", kind="auth", status=401),
        errors.ModelGone("gone"),
        errors.ModelUnregistered("m"),
        errors.OrchestratorClosed("closed"),
        errors.OrchestratorInUse("in use"),
        errors.QuorumNotReached("initial", 1, 0, [("m", "why")]),
        errors.RestartLimitExceeded("/a", 3, 5.0, [CAUSE]),
        errors.RunCancelled("run"),
        errors.StageFailed("meta", "the prompt", CAUSE),
        errors.StrategyFailed("vote", CAUSE),
        errors.StrategyGone("gone"),
        errors.SubmittedRunFailed("run", "QuorumNotReached", "nobody answered"),
        errors.UnknownRun("run"),
        errors.StrayCancelled(KeyboardInterrupt()),
    ]


@pytest.mark.parametrize("error", _all(), ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "how", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy], ids=["pickle", "copy", "deep"]
)
def test_an_error_survives(error: errors.UltraError, how: Callable[[object], BaseException]) -> None:
    again = how(error)
    assert type(again) is type(error)
    assert (str(again), again.args) == (str(error), error.args)
    assert {name: str(value) for name, value in vars(again).items()} == {
        name: str(value) for name, value in vars(error).items()
    }
    assert type(again.__cause__) is type(error.__cause__)
    assert str(again.__cause__) == str(error.__cause__)


def test_every_error_that_has_a_name_is_tried() -> None:
    named = {getattr(errors, name) for name in errors.__all__}
    classes = {kind for kind in named if isinstance(kind, type)}
    assert classes - {type(error) for error in _all()} == {
        errors.ActorError,
        errors.UltraError,
        errors.UsageError,
    }


def test_what_cannot_be_pickled_is_replaced_by_its_text() -> None:
    class LocalError(Exception):
        pass

    error = errors.InboxFull("/a", 3, lambda: None)
    error.__cause__ = LocalError("local")
    again = pickle.loads(pickle.dumps(error))
    assert "lambda" in again.rejected
    assert str(again.__cause__) == "LocalError: local"
    assert copy.copy(error).rejected is error.rejected
    assert copy.copy(error).__cause__ is error.__cause__


def test_the_text_of_an_error_that_fails_to_tell_it_says_so() -> None:
    error = UntellableError()
    assert text_of(error) == "<its text cannot be told: __str__ raised RuntimeError>"
    assert title_of(error).startswith("UntellableError: <its text")
    assert title_of(ValueError("x")) == "ValueError: x"
    assert "its text cannot be told" in str(errors.ActorCrashed("/a", error, 1))


def test_an_error_whose_causes_go_round_in_a_circle_is_copied() -> None:
    error, cause = ModelError("a"), ModelError("b")
    error.__cause__, cause.__cause__ = cause, error
    for same in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert same.__cause__ is not None
        assert str(same.__cause__.__cause__) == str(error)


def test_each_error_of_a_long_chain_of_causes_is_pickled_once() -> None:
    dumped = 0

    class Counted:
        def __reduce__(self) -> tuple[type[int], tuple[()]]:
            nonlocal dumped
            dumped += 1
            return int, ()

    error = ModelError("the first")
    error.usage = Counted()
    for _ in range(40):
        error, cause = ModelError("the next"), error
        error.__cause__ = cause
    pickle.loads(pickle.dumps(error))
    assert dumped == 2  # once to see whether it can be


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_argument_that_cannot_be_pickled_is_replaced_by_its_text(protocol: int) -> None:
    error = UltraError("text", lambda: None)
    same = pickle.loads(pickle.dumps(error, protocol))
    assert same.args[0] == "text"
    assert "lambda" in same.args[1]
