"""Counters of one model, and windows of its newest times and scores."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from math import ceil, fsum
from typing import TYPE_CHECKING, Final

from ultra._support.histogram import Histogram
from ultra.errors import ModelError
from ultra.messages.results import ModelMetrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.messages.results import ModelResponse, Usage

__all__ = ["MetricsRecorder", "StageTimes"]

WINDOW: Final = 256
"""How many of the newest times and scores are kept."""

LATEST: Final = 20
"""How many of the newest outcomes are kept; the health of a model is judged by them."""


STAGES: Final = 32
"""How many stages are told apart by their times; those beyond are counted together."""

OTHER_STAGES: Final = "other"


class StageTimes:
    """How long the answers of one model in one stage took [s]; those from the cache are not counted."""

    __slots__ = ("first_token", "response")

    def __init__(self) -> None:
        self.response = Histogram()
        self.first_token = Histogram()


class _Window:
    """The newest values of one kind, with their mean and percentiles.

    They are kept in order of size, too: every result of a run has the percentiles, and to sort for each
    would take longer than to insert once.
    """

    __slots__ = ("_ordered", "_sum", "_until_summed", "_values")

    def __init__(self) -> None:
        self._values: deque[float] = deque()
        self._ordered: list[float] = []
        # Kept, since the values lie all over the memory: to read them all for each result fills the caches.
        self._sum = 0.0
        self._until_summed = WINDOW

    def append(self, value: float) -> None:
        if len(self._values) == WINDOW:
            oldest = self._values.popleft()
            del self._ordered[bisect_left(self._ordered, oldest)]
            self._sum -= oldest
        self._values.append(value)
        insort(self._ordered, value)
        self._sum += value
        self._until_summed -= 1
        if not self._until_summed:  # before what rounding has lost can add up
            self._until_summed = WINDOW
            self._sum = fsum(self._values)

    def newest(self) -> list[float]:
        """Return a copy of the values, oldest first."""
        return list(self._values)

    def mean(self) -> float | None:
        """Return the mean; None where there are no values."""
        return self._sum / len(self._values) if self._values else None

    def percentiles(self) -> tuple[float | None, float | None]:
        """Return the 50th and the 95th percentile (nearest rank); None where there are no values."""
        if not self._values:
            return None, None
        ordered = self._ordered
        return ordered[(len(ordered) - 1) // 2], ordered[ceil(0.95 * len(ordered)) - 1]


class MetricsRecorder:
    """Counts what one model does. It belongs to the registration, so it outlives every actor.

    `priced`: whether the model has a price; without one, its cost is not known.
    """

    __slots__ = (
        "_quality",
        "_response_times",
        "_times_to_first_token",
        "attempts",
        "cache_hits",
        "cache_misses",
        "cancelled",
        "cost",
        "errors",
        "failures",
        "hedges",
        "hedges_won",
        "input_tokens",
        "joined",
        "latest",
        "output_tokens",
        "retries",
        "stages",
        "successes",
        "tokens_estimated",
    )

    def __init__(self, *, priced: bool = False) -> None:
        self.successes = self.failures = self.cancelled = 0
        self.attempts = self.retries = self.joined = 0
        self.cache_hits = self.cache_misses = 0
        self.input_tokens = self.output_tokens = 0
        self.hedges = self.hedges_won = 0
        self.tokens_estimated = False
        self.cost = 0.0 if priced else None
        self.errors: dict[str, int] = {}  # by kind
        self.stages: dict[str, StageTimes] = {}
        self.latest: deque[ModelError | None] = deque(maxlen=LATEST)
        self._response_times = _Window()
        self._times_to_first_token = _Window()
        self._quality = _Window()

    @property
    def requests(self) -> int:
        """Requests that have ended; one that is redelivered after a crash counts once more."""
        return self.successes + self.failures + self.cancelled

    def called(self, error: ModelError | None) -> None:
        """Note how a request to the client ended, after all retries: with an error, or None for an answer."""
        if error is not None:
            self.errors[error.kind] = self.errors.get(error.kind, 0) + 1
            # A copy without its traceback, whose frames hold prompts.
            error = ModelError(error.message, provider=error.provider, kind=error.kind, status=error.status)
        self.latest.append(error)

    def answered(
        self, response_time: float, time_to_first_token: float | None, stage: str = OTHER_STAGES
    ) -> None:
        """Count an answer of this stage, which came after so many seconds, retries included."""
        times = self.stages.get(stage) or self._new_stage(stage)
        self._response_times.append(response_time)
        times.response.add(response_time)
        if time_to_first_token is not None:
            self._times_to_first_token.append(time_to_first_token)
            times.first_token.add(time_to_first_token)

    def _new_stage(self, stage: str) -> StageTimes:
        if len(self.stages) >= STAGES:  # a label may be anybody's text
            return self.stages.setdefault(OTHER_STAGES, StageTimes())
        return self.stages.setdefault(stage, StageTimes())

    def used(self, usage: Usage | None, cost: float | None) -> None:
        """Count the tokens of a call, and its cost in dollars."""
        if usage is not None:
            self.input_tokens += usage.input or 0
            self.output_tokens += usage.output or 0
            self.tokens_estimated = self.tokens_estimated or usage.estimated
        if cost is not None:
            self.cost = (self.cost or 0.0) + cost

    @property
    def newest_response_times(self) -> Sequence[float]:
        """The newest response times [s], oldest first."""
        return self._response_times.newest()

    def hedged(self) -> None:
        """Count a hedge."""
        self.hedges += 1

    def scored(self, quality: float) -> None:
        """Keep the quality score (0..1) of an answer."""
        self._quality.append(quality)

    def snapshot(self) -> ModelMetrics:
        """Return all numbers at this moment; what is returned does not change any more."""
        return self._numbers(
            self._response_times.newest(), self._times_to_first_token.newest(), self._quality.newest()
        )

    def of_run(self, responses: Sequence[ModelResponse]) -> ModelMetrics:
        """Return the same, but with the times and scores of the answers of one run alone.

        Here, too, answers from the cache have no times.
        """
        called = [response for response in responses if not response.cached]
        return self._numbers(
            [response.response_time for response in called],
            [r.time_to_first_token for r in called if r.time_to_first_token is not None],
            [response.quality for response in responses if response.quality is not None],
        )

    def _numbers(
        self, response_times: list[float], times_to_first_token: list[float], quality_scores: list[float]
    ) -> ModelMetrics:
        finished = self.successes + self.failures
        middle, high = self._response_times.percentiles()
        return ModelMetrics(
            requests=self.requests,
            successes=self.successes,
            failures=self.failures,
            cancelled=self.cancelled,
            attempts=self.attempts,
            retries=self.retries,
            success_rate=self.successes / finished if finished else None,
            response_times=response_times,
            average_response_time=self._response_times.mean(),
            response_time_p50=middle,
            response_time_p95=high,
            times_to_first_token=times_to_first_token,
            quality_scores=quality_scores,
            average_quality=self._quality.mean(),
            cache_hits=self.cache_hits,
            cache_misses=self.cache_misses,
            joined=self.joined,
            hedges=self.hedges,
            hedges_won=self.hedges_won,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            tokens_estimated=self.tokens_estimated,
            cost=self.cost,
        )
