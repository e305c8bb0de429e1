"""`POST /v1/agreement`: who agrees with whom, for the matrix of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
from msgspec import Struct

from ultra._support.cooperative import run_in_pieces
from ultra.scoring.agreement_matrix import compare_in_pieces
from ultra.service.bodies import read_json
from ultra.service.http import json_reply
from ultra.service.problems import Problem

if TYPE_CHECKING:
    from ultra.service.core import Service
    from ultra.service.http import Reply, Request

__all__ = ["MOST_ANSWERS", "Compared", "compare_answers"]

MOST_ANSWERS: Final = 32


class Compared(Struct, forbid_unknown_fields=True):
    """Answers to one question, by any names."""

    answers: dict[str, str]
    question: str = ""


async def compare_answers(service: Service, request: Request) -> Reply:
    """Return the agreement of each two answers, as `AgreementMatrix` has it; no model is asked.

    Raises:
        Problem: the body is not as it must be, or there are too many answers.
    """
    body = read_json(request, Compared, max_nesting=service.settings.max_nesting)
    if len(body.answers) > MOST_ANSWERS:
        text = f"there are {len(body.answers)} answers; at most {MOST_ANSWERS} can be compared"
        raise Problem.bad_request(text, param="answers")
    work = compare_in_pieces(body.question, body.answers)
    return json_reply(await run_in_pieces(work, anyio.lowlevel.checkpoint))
