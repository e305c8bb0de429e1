"""What policies and options are made of is looked at where it is given, not at the first failure."""

from __future__ import annotations

from typing import Any

import pytest

from ultra import (
    BreakerPolicy,
    Hedge,
    Limits,
    Price,
    PriceTier,
    RestartIntensity,
    RetryPolicy,
    RunOptions,
    SamplingOptions,
    Stage,
    Timeouts,
)
from ultra.errors import BadCall


class Hostile:
    """An object that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


NEEDED: dict[type, dict[str, Any]] = {
    Price: {"input": 1.0, "output": 1.0},
    PriceTier: {"above": 1, "input": 1.0, "output": 1.0},
}
KINDS: list[Any] = [
    RetryPolicy,
    Timeouts,
    Limits,
    BreakerPolicy,
    Hedge,
    Price,
    PriceTier,
    RestartIntensity,
    SamplingOptions,
    RunOptions,
]
WRONG = [Hostile(), object(), b"x", float("nan"), 10**5_000, {1: 2}, lambda: 1]
FIELDS = [(kind, field) for kind in KINDS for field in kind.__struct_fields__]


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_a_value_of_a_wrong_type_is_refused_at_once(kind: Any, field: str) -> None:
    told: dict[type, str] = {}
    for wrong in WRONG:
        try:
            kind(**{**NEEDED.get(kind, {}), field: wrong})
        except BadCall as error:
            told[type(wrong)] = str(error)
    assert [type(wrong).__name__ for wrong in WRONG if type(wrong) not in told] == []
    assert max(map(len, told.values())) < 1_000


@pytest.mark.parametrize("wrong", [Hostile(), 3, ["initial"], b"x"], ids=lambda wrong: type(wrong).__name__)
@pytest.mark.parametrize("field", ["name", "prompt", "reads", "asks", "system", "optional"])
def test_so_is_one_of_a_stage(field: str, wrong: Any) -> None:
    given: dict[str, Any] = {"name": "mine", "prompt": lambda _: "p", field: wrong}
    with pytest.raises(BadCall):
        Stage(**given)
