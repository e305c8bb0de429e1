"""A conversation of several turns: each turn is answered by all models, and the answers are merged.

Start it with ``python examples/conversation.py``. The two models are written below, so it needs no key. In
their place, ``connect("openai:gpt-4o")`` and its like take the same conversations, with images.
"""

import trio

from ultra import ChatMessage, ImagePart, MultiLLMOrchestrator, TextPart

PIXEL = bytes.fromhex(  # a PNG of one pixel
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c63f8cfc0f01f00050001ff56c7aa5e0000000049454e44ae426082"
)


async def counter(messages: list[dict[str, object]]) -> str:
    """A client that takes `messages` gets the conversation, in the form of OpenAI's chat completions."""
    asked = sum(message["role"] == "user" for message in messages)
    return f"You asked {asked} question{'' if asked == 1 else 's'} so far."


class Reader:
    """A client that takes only a prompt gets the conversation as text, with the roles named."""

    async def generate(self, prompt: str, *, system: str | None = None) -> str:
        """Answer with how the conversation began; a system prompt that is declared stands apart."""
        manner = f" ({system})" if system else ""
        return f"It began with: {prompt.splitlines()[0]}{manner}"


async def main() -> None:
    """Ask twice, the second time with what was said before, and with an image."""
    async with MultiLLMOrchestrator(stages=["initial", "synthesis"]) as orchestrator:
        orchestrator.register_model("counter", counter, weight=2.0)
        orchestrator.register_model("reader", Reader())

        conversation = [ChatMessage("user", "Hello! Who are you?")]
        results = await orchestrator.process_responses(conversation)
        print(results["final_synthesis"])

        picture = ImagePart.of(PIXEL)
        conversation += [
            results["final_synthesis"].message,  # the answer, as the assistant's message
            ChatMessage("user", (TextPart("What is in this picture?"), picture)),
        ]
        results = await orchestrator.process_responses(conversation, system="Be brief.")
        for name, response in results["initial_responses"].items():
            print(f"{name}: {response}")


if __name__ == "__main__":
    trio.run(main)
