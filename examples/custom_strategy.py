"""A strategy of your own: two models answer, and only where they disagree, another one is asked.

Start it with ``python examples/custom_strategy.py``; its voices are written below. The command takes the
strategy, too, in the folder of this file: ``ultra ask "..." --strategy custom_strategy:SecondOpinion``. A
package names its strategies in the group ``ultra.strategies`` of its entry points; then the name will do.
"""

import trio
from msgspec import Struct

from ultra import MultiLLMOrchestrator
from ultra.events import ModelResponded, StageStarted
from ultra.scoring.final_answers import final_answer
from ultra.strategies import Answer, RunContext


class SecondOpinion(Struct, frozen=True):
    """Ask the `first` models of highest weight; where they disagree, let another read their answers."""

    first: int = 2

    async def run(self, context: RunContext) -> Answer:
        """Ask and decide. Deadline, quorum, budget, retries and events are the run's business."""
        with context.step("initial"):
            answers = await context.ask_all(context.request, models=context.models[: self.first])
        best = context.best(answers)
        if len({final_answer(answer.content) for answer in answers}) == 1:
            return Answer(best, "selected", confidence=1.0)

        context.note("the first models disagree: another one read their answers and decided")
        others = context.models[self.first :] or context.models
        with context.step("decision"):
            decision = await context.ask_first(context.compose("synthesis", answers), models=others)
        if decision is None:
            context.degrade("nobody could decide; the answer of highest weight stands")
            return Answer(best, "best_candidate")
        return Answer(decision, "primary")


class Voice:
    """Answers as it is told; when it reads what others wrote, it decides."""

    def __init__(self, **answers: str) -> None:
        self.answers = answers

    async def generate(self, prompt: str) -> str:
        """Answer `prompt`."""
        await trio.sleep(0.01)
        topic = next(topic for topic in self.answers if topic in prompt)
        return f"I read both. {self.answers[topic]}" if "Candidate" in prompt else self.answers[topic]


async def main() -> None:
    """Ask one question on which they agree, and stream another one on which they do not."""
    async with MultiLLMOrchestrator(strategy=SecondOpinion()) as orchestrator:
        orchestrator.register_model("ann", Voice(times="The answer is 42.", larger="9.11"), weight=3.0)
        orchestrator.register_model("bob", Voice(times="**42**", larger="9.9"), weight=2.0)
        orchestrator.register_model("cid", Voice(times="7", larger="The answer is 9.9."), weight=1.0)

        result = await orchestrator.process_responses("What is 6 times 7?")
        print(f"{result.final_synthesis} ({len(result.steps[0].responses)} models were asked)")

        async with orchestrator.stream_responses("Which number is larger, 9.11 or 9.9?") as run:
            async for event in run:
                match event:
                    case StageStarted():
                        print(f"--- {event.stage}: {', '.join(event.models)}")
                    case ModelResponded():
                        print(f"{event.model_name}: {event.response}")
                    case _:
                        pass
            result = await run.result()
        print(f"{result.final_synthesis} ({result.notices[0]})")


if __name__ == "__main__":
    trio.run(main)
