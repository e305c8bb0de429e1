"""What stays beside a request, by its id, and how long it has."""

from __future__ import annotations

import math

import pytest

from helpers.model_actors import Transcript
from ultra.actors.model.messages import LocalRequest, LocalRequests, seconds


def test_a_listener_is_known_under_its_requests_id_and_no_other() -> None:
    requests, listener = LocalRequests(), Transcript()
    requests.add("one", LocalRequest(listener))
    assert requests.get("one").listener is listener
    assert requests.get("other").listener is None
    requests.discard("one")
    requests.discard("one")
    assert requests.get("one").listener is None
    assert len(requests) == 0


def test_what_is_subscribed_is_forgotten_after_the_block_however_that_ends() -> None:
    requests, local = LocalRequests(), LocalRequest(Transcript())

    def break_down() -> None:
        with requests.subscribed("one", local):
            assert requests.get("one") is local
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_down()
    assert len(requests) == 0


@pytest.mark.parametrize(("deadline", "left"), [(15.0, 5.0), (10.0, 0.0), (3.0, 0.0), (math.inf, None)])
def test_a_deadline_travels_as_the_seconds_that_are_left(deadline: float, left: float | None) -> None:
    assert seconds(deadline, now=10.0) == left
