"""Pick one of the answers, by a verifier, a judge or agreement, and change not a word of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from ultra.bridge.interruption import is_interruption
from ultra.errors import BadCall, StageFailed
from ultra.strategies.base import Answer

if TYPE_CHECKING:
    from ultra.messages.results import ModelResponse
    from ultra.strategies.base import RunContext

__all__ = ["BestOf", "Verify"]

Verify = Callable[[str], bool | float]
"""Says of the text of an answer whether it is right, or how good it is (0..1)."""


class BestOf(Struct, frozen=True, kw_only=True):
    """Ask all models and return the best answer as it is.

    With `verify`, the best is what that says, such as the result of running tests; of equals, and where
    nothing passes, the answer that the orchestrator's scorer or judge finds best. Without it, these alone
    decide. `verify` runs where the actors do and must not block.

    Raises:
        BadCall: `verify` cannot be called.
    """

    verify: Verify | None = None

    def __post_init__(self) -> None:
        if self.verify is not None and not callable(self.verify):
            raise BadCall(f"verify is {self.verify!r}; it must be a function of an answer's text, or None")

    async def run(self, context: RunContext) -> Answer:
        """Ask all, score, and pick; see `Strategy.run`."""
        with context.step("initial"):
            responses = await context.ask_all(context.request)
            if len(responses) > 1:
                responses = await context.score(responses)
        passed = responses
        if self.verify is not None:
            verified = [(self._verified(context, self.verify, response), response) for response in responses]
            highest = max(grade for grade, _ in verified)
            passed = [response for grade, response in verified if grade == highest]
            if not highest:
                context.degrade("no answer passed the verifier; the one that scores best stands in its place")
            else:
                return Answer(context.best(passed), "selected", highest, "verifier")
        return Answer(context.best(passed), "selected")

    def _verified(self, context: RunContext, verify: Verify, response: ModelResponse) -> float:
        try:
            grade: object = context.call_user(verify, response.content)
            if not (isinstance(grade, (bool, int, float)) and 0 <= grade <= 1):
                raise TypeError(f"it gave {grade!r}; it must give a bool, or a number from 0 to 1")  # noqa: TRY301
        except BaseException as error:
            if is_interruption(error):
                raise
            raise StageFailed("initial", "the verifier", error) from error
        return float(grade)
