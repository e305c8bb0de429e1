"""A chain of langchain whose model is an ensemble: it talks to `ultra serve` as to OpenAI.

    pip install "ultra-llm[cli,serve]" langchain-openai

The service is started here, with simulated models that make up what they say, and ended again. With one of
your own, all you need is its address.
"""

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr
from running_service import serving


class City(BaseModel):
    """What is asked for."""

    name: str
    inhabitants: int


def ask(url: str) -> None:
    """Ask by a chain, as a stream, and for a structure."""
    model = ChatOpenAI(model="council", base_url=f"{url}/v1", api_key=SecretStr("none"), timeout=60)
    prompt = ChatPromptTemplate.from_messages([("system", "Answer in one sentence."), ("user", "{question}")])
    chain = prompt | model | StrOutputParser()
    print(chain.invoke({"question": "Which city is the capital of France?"}))
    for piece in chain.stream({"question": "And of Italy?"}):
        print(piece, end="")
    print()
    city = model.with_structured_output(City).invoke("Describe Paris.")
    print(f"as a structure: {city!r}")


if __name__ == "__main__":
    with serving() as address:
        ask(address)
