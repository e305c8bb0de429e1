"""Tools: models call typed functions of yours, and the answer is made of what these gave.

Start it with ``python examples/tools.py``. The two models are written below, so it needs no key. In their
place, ``connect("openai:gpt-4o")`` and its like call the same functions.
"""

import json
from typing import Annotated, Any, Literal

import trio
from msgspec import Meta

from ultra import Completion, MultiLLMOrchestrator, ToolCall
from ultra.events import ToolEnded, ToolStarted

DEGREES = {"Paris": 21.0, "Oslo": 9.5}


async def weather(
    city: Annotated[str, Meta(description="in English")], unit: Literal["C", "F"] = "C"
) -> dict[str, object]:
    """Return the weather of a city now."""
    await trio.sleep(0.01)  # an async function runs on your loop
    degrees = DEGREES[city]  # an exception is a result, too: the model reads its text
    return {"degrees": degrees if unit == "C" else degrees * 1.8 + 32, "unit": unit}


def population(city: str) -> int:
    """Return how many people live in a city."""
    return {"Paris": 2_103_000, "Oslo": 724_000}[city]  # what is not async runs in a thread


async def careful(messages: list[dict[str, Any]], *, tools: list[Any] | None = None) -> Completion:
    """A model that looks things up: it declares `tools`, and gets them in the form of OpenAI."""
    results = [message for message in messages if message["role"] == "tool"]
    if tools and not results:
        calls = [
            ToolCall("1", "weather", json.dumps({"city": "Paris"})),
            ToolCall("2", "weather", json.dumps({"city": "Atlantis"})),
            ToolCall("3", "population", json.dumps({"city": "Paris"})),
        ]
        return Completion("", tool_calls=tuple(calls))
    return Completion("In Paris: " + "; ".join(message["content"] for message in results))


async def quick(prompt: str) -> str:
    """A model that takes only a prompt: it is told in words what the tools gave."""
    return f"I was told of {prompt.count(' gave:')} results."


async def main() -> None:
    """Ask once with the functions called, and once for the calls alone."""
    async with MultiLLMOrchestrator() as orchestrator:
        orchestrator.register_model("careful", careful, weight=2.0)
        orchestrator.register_model("quick", quick)
        question = "How warm is it in Paris, and how many people live there?"

        async with orchestrator.stream_tools(question, [weather, population]) as run:
            async for event in run:
                match event:
                    case ToolStarted():
                        print(f"calling {event.call}")
                    case ToolEnded() if event.message.is_error:
                        print(f"{event.call} failed: {event.message.text}")
                    case _:
                        pass
            answer = await run.result()
        print(answer.final_synthesis)

        # The ensemble can write the answer: each model has what the tools gave.
        answer = await orchestrator.run_tools(
            question, [weather, population], final="ensemble", stages=["initial", "synthesis"]
        )
        print(answer.result["initial_responses"]["quick"])

        # Who calls functions in another way gets the calls, and gives the results in the next turn.
        results = await orchestrator.process_responses(question, tools=[weather, population])
        print(f"{results['final_synthesis'].model_name} calls: {', '.join(map(str, results['tool_calls']))}")


if __name__ == "__main__":
    trio.run(main)
