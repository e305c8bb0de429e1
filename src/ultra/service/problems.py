"""What goes wrong, as clients are told: a status, a type and a code, and never the words of a provider."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from ultra.errors import (
    AllAttemptsFailed,
    BadCall,
    DeadlineExceeded,
    IdempotencyConflict,
    JournalDamaged,
    JournalUnavailable,
    MissingExtra,
    ModelError,
    OrchestratorClosed,
    QuorumNotReached,
    RunCancelled,
    StageFailed,
    StrategyFailed,
    SubmittedRunFailed,
    UnknownRun,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ultra.messages.results import ModelFailure

__all__ = ["Problem", "failed_models", "failed_run", "no_answer", "problem_of", "reused_key", "unknown_run"]

_BY_KIND: Final[Mapping[str, tuple[int, str, str, str]]] = {
    "auth": (502, "server_error", "upstream_refused", "the provider did not accept this service's key"),
    "bad_request": (400, "invalid_request_error", "upstream_refused", "the provider refused the request"),
    "rate_limit": (429, "rate_limit_error", "rate_limit_exceeded", "the provider's rate limit is reached"),
    "quota": (502, "server_error", "upstream_quota", "this service's account at the provider is used up"),
    "overloaded": (503, "overloaded_error", "overloaded", "the provider is overloaded"),
    "timeout": (504, "timeout_error", "deadline_exceeded", "the provider did not answer in time"),
}
"""Status, type, code and message for the kinds of failures of a single model; all others are 502."""

_OTHER: Final = (502, "server_error", "model_failed", "the provider failed, or gave no usable answer")


class Problem(Exception):
    """A refusal or a failure, in neutral terms; each protocol has its own shape for it.

    Args:
        status: of HTTP.
        type, code, param: OpenAI's words; `param` is the field of the request that is at fault.
        message: what a client may read.
        retry_after: seconds.
        paid: whether the run may have cost money: then no client should retry by itself.
        details: more for the field ``ultra`` of the error, such as the models that failed.
        headers: more headers of the reply.
    """

    def __init__(
        self,
        status: int,
        type: str,  # noqa: A002 - OpenAI's word
        code: str | None,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        paid: bool = False,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.code = code
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.paid = paid
        self.details = dict(details or {})
        self._headers = dict(headers or {})

    @classmethod
    def bad_request(
        cls, message: str, *, code: str | None = "invalid_value", param: str | None = None
    ) -> Problem:
        """Return the refusal of a request that is wrong."""
        return cls(400, "invalid_request_error", code, message, param=param)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that say when to try again, and whether to."""
        found = dict(self._headers)
        if self.retry_after is not None:
            found["retry-after"] = str(math.ceil(self.retry_after))
        if self.paid:
            found["x-should-retry"] = "false"
        return found

    def as_openai(self) -> dict[str, Any]:
        """Return the body of OpenAI's protocol."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error | ({"ultra": self.details} if self.details else {})}


def failed_models(failures: Sequence[ModelFailure]) -> list[dict[str, Any]]:
    """Return which models failed, in which stage, and by what kind of error: no text of a provider."""
    return [
        {"model": each.model_name, "stage": each.stage, "error": each.kind or each.error} for each in failures
    ]


def problem_of(  # noqa: C901, PLR0911, PLR0912 - one for each class of error
    error: Exception,
    failures: Sequence[ModelFailure] = (),
    *,
    paid: bool = False,
    single: bool = False,
) -> Problem:
    """Return what clients are told of the error of a run.

    `failures` are those of its models. `paid`: a call may have cost money. `single`: the run is of one model,
    and what is wrong with that is what is told.
    """
    details = {"failed_models": failed_models(failures)} if failures else {}
    match error:
        case Problem():
            return error
        case UnknownRun():
            return unknown_run(error.run_id)
        case IdempotencyConflict():
            return reused_key()
        case RunCancelled():
            text = "the run was cancelled"
            return Problem(503, "server_error", "cancelled", text, paid=paid)
        case SubmittedRunFailed():
            return failed_run(error.code, error.message, failures, paid=paid, single=single)
        case JournalDamaged():
            return _damaged(paid=paid)
        case JournalUnavailable():
            text = "the journal of runs cannot be used now; ask again in a moment"
            return Problem(503, "overloaded_error", "journal_unavailable", text, retry_after=5.0)
        case BadCall():
            return Problem.bad_request(str(error))
        case MissingExtra():
            text = f"{error.feature} is not installed on this service (extra {error.extra!r})"
            return Problem.bad_request(text, code="unsupported_value")
        case DeadlineExceeded():
            return _problem(_BY_KIND["timeout"], "the run did not end in time", paid=paid, details=details)
        case QuorumNotReached():
            came = f"{error.answered} of the {error.needed} answers that are needed came"
            text = f"{came}; the other models failed"
            wait, writes = _retry_after(error), error.stage == "synthesis"
            return _unanswered(text, wait, failures, details, paid=paid, single=single, writes=writes)
        case StageFailed() | StrategyFailed():
            return _strategy_failed(details, paid=paid)
        case OrchestratorClosed():
            return Problem(503, "overloaded_error", "shutting_down", "the service is ending", retry_after=1.0)
        case _:
            text = "the service failed; its log has the error"
            return Problem(500, "server_error", "internal_error", text, paid=paid, details=details)


def failed_run(  # noqa: PLR0911 - one for each class of error
    code: str,
    message: str,
    failures: Sequence[ModelFailure] = (),
    *,
    paid: bool = False,
    single: bool = False,
) -> Problem:
    """Return what clients are told of a run that failed in another process.

    `code` and `message` are those of its `RunFailed`: the class of the error, and its text.
    """
    details = {"failed_models": failed_models(failures)} if failures else {}
    match code:
        case "RunCancelled":
            return problem_of(RunCancelled(""), failures, paid=paid)
        case "BadCall" | "UsageError" | "ModelUnregistered":
            return Problem.bad_request(message)
        case "ModelGone":
            text = "a model of this run is no longer there, so it was not taken up again"
            return Problem(500, "server_error", "model_gone", text, paid=paid, details=details)
        case "StrategyGone":
            text = "the strategy of this run is no longer there, so it was not taken up again"
            return Problem(500, "server_error", "strategy_gone", text, paid=paid, details=details)
        case "JournalDamaged":
            return _damaged(paid=paid)
        case "DeadlineExceeded":
            return _problem(_BY_KIND["timeout"], "the run did not end in time", paid=paid, details=details)
        case "QuorumNotReached":
            text = "fewer answers than are needed came; the other models failed"
            writes = bool(failures) and failures[-1].stage == "synthesis"
            return _unanswered(text, None, failures, details, paid=paid, single=single, writes=writes)
        case "StageFailed" | "StrategyFailed":
            return _strategy_failed(details, paid=paid)
        case _:
            text = "the service failed; its log has the error"
            return Problem(500, "server_error", "internal_error", text, paid=paid, details=details)


def _damaged(*, paid: bool) -> Problem:
    text = "what the journal has of this cannot be read; a run can be deleted"
    return Problem(500, "server_error", "journal_damaged", text, paid=paid)


def no_answer(*, paid: bool) -> Problem:
    """Return what is told of a run that has come to no answer."""
    text = "the stages of this ensemble give no answer; let one of them be 'synthesis'"
    return Problem(500, "server_error", "no_answer", text, paid=paid)


def unknown_run(name: str, what: str = "run") -> Problem:
    """Return the refusal of a request for a run that is not there, or is somebody else's."""
    text = f"there is no {what} {name[:100]!r}; one that ended is removed after a while"
    return Problem(404, "invalid_request_error", f"{what}_not_found", text)


def reused_key() -> Problem:
    """Return the refusal of an `Idempotency-Key` that was used for another request.

    The status is 422: SDKs ask again by themselves after a 409.
    """
    text = "this Idempotency-Key was used for another request; give each request its own"
    return Problem(422, "invalid_request_error", "idempotency_key_reused", text, param="Idempotency-Key")


def _strategy_failed(details: Mapping[str, Any], *, paid: bool) -> Problem:
    text = "the strategy of this ensemble failed"
    return Problem(500, "server_error", "strategy_failed", text, paid=paid, details=details)


def _unanswered(
    text: str,
    wait: float | None,
    failures: Sequence[ModelFailure],
    details: Mapping[str, Any],
    *,
    paid: bool,
    single: bool,
    writes: bool,
) -> Problem:
    if failures and all(failure.error == "DeadlineExceeded" for failure in failures):
        return _problem(_BY_KIND["timeout"], "the run did not end in time", paid=paid, details=details)
    if not paid and failures and all(failure.kind == "overloaded" for failure in failures):
        text = "the models of this run are failing, and are given time to recover"
        return Problem(503, "overloaded_error", "overloaded", text, retry_after=wait or 1.0, details=details)
    if single:
        kind = failures[-1].kind if failures else None
        found = _BY_KIND.get(kind or "", _OTHER)
        return _problem(found, found[3], paid=paid, details=details, retry_after=wait)
    if writes:
        text = "no model could write the answer"
        return Problem(502, "server_error", "judge_failed", text, paid=paid, details=details)
    return Problem(502, "server_error", "quorum_not_reached", text, paid=paid, details=details)


def _problem(
    found: tuple[int, str, str, str],
    message: str,
    *,
    paid: bool,
    details: Mapping[str, Any],
    retry_after: float | None = None,
) -> Problem:
    status, kind, code, _ = found
    return Problem(status, kind, code, message, paid=paid, details=details, retry_after=retry_after)


def _retry_after(error: BaseException | None) -> float | None:
    """Return the seconds that the causes of an error name, the shortest of several."""
    if isinstance(error, BaseExceptionGroup):
        waits = [wait for each in error.exceptions if (wait := _retry_after(each)) is not None]
        return min(waits, default=None)
    if isinstance(error, ModelError):
        return error.retry_after
    if isinstance(error, (AllAttemptsFailed, QuorumNotReached)):
        return _retry_after(error.__cause__)
    return None
