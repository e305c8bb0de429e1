"""Stages of your own: one made by a method, one by a `Stage`, between the built-in ones.

Start it with ``python examples/custom_stage.py``. Its voices are written below, so that it shows the
flow of a run and needs no model.
"""

from collections import Counter

import trio

from ultra import MultiLLMOrchestrator, Stage, StageResponses


class Juror:
    """Votes for an option that is given, and explains itself in one line."""

    def __init__(self, vote: str) -> None:
        self.vote = vote

    async def generate(self, prompt: str) -> str:
        """Answer `prompt`."""
        await trio.sleep(0.01)
        if "Which objection" in prompt:
            return f"The strongest objection to {self.vote} is its cost."
        return f"I choose {self.vote}."


class Jury(MultiLLMOrchestrator):
    """Adds a stage called ``objection``, by its method."""

    def _create_objection_prompt(self, responses: StageResponses) -> str:
        """Asked of all models; `responses` are those of the stage before it."""
        votes = Counter(response.content for response in responses)
        tally = "; ".join(f"{answer} ({count} votes)" for answer, count in votes.most_common())
        return f"{responses.prompt}\nThe votes: {tally}\nWhich objection to your own choice is the strongest?"


def verdict(responses: StageResponses) -> str:
    """The prompt of the last stage: it sees the objections, and the first answers too."""
    objections = "\n".join(response.content for response in responses)
    votes = "\n".join(response.content for response in responses.stage("initial"))
    return f"{responses.prompt}\nVotes:\n{votes}\nObjections:\n{objections}\nGive the verdict."


async def main() -> None:
    """Run initial, objection and verdict."""
    jury = Jury()
    jury.register_model("ann", Juror("plan A"), weight=2.0)
    jury.register_model("bob", Juror("plan B"))
    jury.register_model("cid", Juror("plan A"))

    # "first": the model of highest weight gives the verdict, the next one if it cannot.
    last = Stage(name="verdict", asks="first", prompt=verdict)
    results = await jury.process_responses("Which plan is better?", stages=["initial", "objection", last])

    for stage in ("initial", "objection", "verdict"):
        for name, response in results[f"{stage}_responses"].items():
            print(f"{stage:10} {name}: {response}")


if __name__ == "__main__":
    trio.run(main)
