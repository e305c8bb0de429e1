"""An agent of pydantic-ai whose model is an ensemble: it talks to `ultra serve` as to OpenAI.

    pip install "ultra-llm[cli,serve]" "pydantic-ai-slim[openai]"

The service is started here, with simulated models that make up what they say, and ended again. With one of
your own, all you need is its address.
"""

import asyncio

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from running_service import serving


def make_agent(url: str) -> Agent:
    """Return an agent that asks the ensemble ``council``, and may call a tool."""
    provider = OpenAIProvider(base_url=f"{url}/v1", api_key="none")
    agent = Agent(OpenAIChatModel("council", provider=provider), instructions="Answer in one sentence.")

    @agent.tool_plain
    def population(city: str) -> int:
        """Return how many people live in a city."""
        print(f"population({city!r}) is called")
        return {"Paris": 2_103_000}.get(city, 0)

    return agent


async def ask(url: str) -> None:
    """Ask in one piece, with a tool, and as a stream."""
    agent = make_agent(url)
    first = await agent.run("Which city is the capital of France?")
    print(first.output)
    second = await agent.run(
        "How many people live there? Call population.", message_history=first.all_messages()
    )
    print(second.output)
    async with agent.run_stream("Name a second city.") as stream:
        async for text in stream.stream_text(delta=True):
            print(text, end="")
    print()
    print(f"{second.usage.requests} requests to the ensemble for the second answer")


if __name__ == "__main__":
    with serving() as address:
        asyncio.run(ask(address))
