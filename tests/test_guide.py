"""The code of the guides, run in its order; and their configuration, read."""

from __future__ import annotations

import ast
import asyncio
import re
import sys
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import msgspec
import pytest
import trio
from msgspec.structs import replace

import ultra
from helpers.paths import ROOT, SHARED
from ultra import MultiLLMOrchestrator, events
from ultra.config.loading import load_configuration
from ultra.messages.request import ModelRequest
from ultra.messages.results import OrchestrationResult
from ultra.testing import FakeAnswer, FakeModel

PAGE = (Path(__file__).parents[1] / "docs" / "guide.md").read_text("utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FIRST_GUIDE = SHARED / "guide.md"
"""The user's own guide, older than Ultra: what is written there must run."""
CONFIGURATIONS = [
    block for block in re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) if "[run]" in block
]


async def answer(prompt: str) -> str:
    return "42"


def call_once(request: ModelRequest) -> FakeAnswer:
    if request.tools and request.messages[-1].role != "tool":
        return FakeAnswer.calling("weather", city="Paris")
    return FakeAnswer("It is warm.")


def orchestrator_with_models() -> MultiLLMOrchestrator:
    orchestrator = MultiLLMOrchestrator()
    for name in ("llama", "chatgpt", "gemini"):
        orchestrator.register_model(name, answer)
    return orchestrator


def names() -> dict[str, Any]:
    """What the guide takes for granted: that its names are imported, and that there are clients."""
    known: dict[str, Any] = {name: getattr(ultra, name) for name in ultra.__all__}
    known |= {name: getattr(events, name) for name in events.__all__}
    clients = ("llama_client", "chatgpt_client", "gemini_client", "client", "primary", "secondary")
    known |= dict.fromkeys(clients, answer)
    return known | {"msgspec": msgspec, "tool_client": FakeModel(call_once)}


async def run(program: str, known: dict[str, Any]) -> None:
    code = compile(program, "docs/guide.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(code, CodeType)
    awaitable = eval(code, known)
    if awaitable is not None:
        await awaitable


async def test_the_code_of_the_guide_runs_from_its_beginning_to_its_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")  # of a client that is made and not asked
    known = names()
    for program in PROGRAMS:
        # Each block has an orchestrator: with models, unless it registers them.
        registers = "register_model(" in program
        known["orchestrator"] = MultiLLMOrchestrator() if registers else orchestrator_with_models()
        await run(program, known)

    printed = capsys.readouterr().out
    assert "initial 0 llama 2 42" in printed  # a third sample
    assert "llama 42\n" in printed  # a chunk of a stream
    assert "128000 16384\nTrue True schema\n" in printed  # of a model in the catalog


@pytest.mark.skipif(not FIRST_GUIDE.exists(), reason=f"the user's own guide is absent: {FIRST_GUIDE}")
@pytest.mark.parametrize("library", ["trio", "asyncio"])
def test_the_code_of_the_first_guide_runs_as_one_program(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT)  # a checkout, as the guide's import takes for granted
    clients = ModuleType("my_llm_clients")
    vars(clients).update({f"{name}_client": FakeModel("42") for name in ("llama", "chatgpt", "gemini")})
    monkeypatch.setitem(sys.modules, "my_llm_clients", clients)
    known: dict[str, Any] = {}
    programs = re.findall(r"^```python\n(.*?)^```$", FIRST_GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(programs) == 11

    async def run_all() -> None:
        for program in programs:
            await run(program, known)

    if library == "trio":
        trio.run(run_all)
    else:
        asyncio.run(run_all())

    assert known["prioritized_models"] == ["llama", "chatgpt", "gemini"]
    assert list(known["results"]["initial_responses"]) == ["llama", "chatgpt"]
    assert known["response"].content == "42"
    assert known["metrics"]["llama"].successes >= 3
    assert known["CustomOrchestrator"].__mro__[1] is MultiLLMOrchestrator


@pytest.mark.parametrize(
    ("section", "expression", "value"),
    [
        ("Basic usage", "list(results['initial_responses'])", ["llama", "chatgpt", "gemini"]),
        ("Basic usage", "results['status']", "success"),
        ("Models and weights", "orchestrator.get_prioritized_models()", ["llama", "chatgpt", "gemini"]),
        (
            "Models and weights",
            "orchestrator.get_prioritized_models(['gemini', 'llama'])",
            ["llama", "gemini"],
        ),
        ("Stages of your own", "[*results['custom_responses']]", ["llama"]),
    ],
)
async def test_what_the_guide_says_of_a_block_is_so(section: str, expression: str, value: object) -> None:
    known = names() | {"orchestrator": MultiLLMOrchestrator()}
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    (program, *_) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)

    await run(program, known)

    assert eval(expression, known) == value


async def test_the_keys_of_a_result_are_those_that_the_guide_names() -> None:
    result = await orchestrator_with_models().process_responses("?")
    section = PAGE.partition("\n## Results\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    named = {key for row in rows for key in re.findall(r"`(\w+)`", row)}

    assert named | {"initial_responses", "meta_responses"} == {*dict(result)}
    assert msgspec.json.decode(msgspec.json.encode(result)).keys() == dict(result).keys()
    assert msgspec.json.decode(msgspec.json.encode(result), type=OrchestrationResult) == replace(result)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_the_configuration_in_the_guide_is_read(configuration: str, tmp_path: Path) -> None:
    path = tmp_path / "ultra.toml"
    path.write_text(configuration, "utf-8")

    assert [*load_configuration(path).models] == ["gpt", "claude"]


def test_the_program_of_the_readme_that_uses_actors_alone_runs(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    programs = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    (program,) = [text for text in programs if "ActorSystem" in text]

    exec(compile(program, "README.md", "exec"), {"__name__": "__main__"})

    assert capsys.readouterr().out == "2 5\n"
