"""What the documents say is so: commands and options exist, links lead somewhere, programs run."""

from __future__ import annotations

import ast
import base64
import re
import shlex
import time
from functools import cache
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import msgspec
import openai
import pytest
import trio
import typer

from helpers.paths import DOCS, ROOT
from helpers.services import client_of, service_of, serving
from ultra import ModelRequest, MultiLLMOrchestrator, strategies
from ultra.cli.app import app
from ultra.config.loading import load_configuration
from ultra.testing import FakeModel

PAGES: Final = [
    *sorted(ROOT.glob("*.md")),
    *sorted(DOCS.rglob("*.md")),
    *sorted((ROOT / "plugins").glob("*/README.md")),
]
LINES: Final = '{"custom_id": "1", "body": {"prompt": "Why?", "ensemble": "ultra"}}\n'
BLOCK: Final = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(language: str, *places: Path, having: str = "") -> list[Any]:
    """All blocks of a language, or those of these pages and folders, as parameters: page and text.

    `having`: only those with a line of this pattern.
    """
    return [
        pytest.param(page, text, id=f"{name_of(page)}-{number}")
        for page in PAGES
        if not places or {page, *page.parents} & {*places}
        for number, (kind, text) in enumerate(BLOCK.findall(page.read_text("utf-8")))
        if kind == language and re.search(having, text, re.MULTILINE)
    ]


def commands_in(page: Path) -> set[str]:
    """Every command line of `ultra` in the page: in blocks of a shell, and in running text."""
    text = page.read_text("utf-8")
    lines = [line for kind, block in BLOCK.findall(text) if kind in {"", "sh"} for line in block.splitlines()]
    spans = re.findall(r"`([^`]+)`", re.sub(r"\s+", " ", BLOCK.sub("", text)))
    # Not where ultra is the name of something, as in `claude mcp add ultra`, or another program starts it.
    found = (re.search(r"(?:^|(?<!add)(?<!--cli)[ (|/])(ultra [a-z-].*)", line) for line in [*lines, *spans])
    return {match[1] for match in found if match}


def words_of(command: str) -> list[str]:
    """The words until the shell takes over."""
    try:
        found = shlex.split(command, comments=True)
    except ValueError:  # in words about a command, an apostrophe is no quotation mark
        found = command.split()
    return [word.strip('[])"') for word in takewhile(lambda word: not re.match(r"[|>&#;]", word), found)]


@cache
def command_of(names: tuple[str, ...]) -> Any:
    """The command of these names, as typer has it; None if there is none."""
    command: Any = typer.main.get_command(app)
    for name in names:
        with command.make_context("ultra", [], resilient_parsing=True) as context:
            _, command, _ = command.resolve_command(context, [name])
    return command


def misuse(command: str) -> str | None:
    """What is wrong with a command line: a command or an option that does not exist; None if nothing is."""
    names: tuple[str, ...] = ()
    for word in words_of(command)[1:]:
        here = command_of(names)
        spelled = (option for each in here.params for option in (*each.opts, *each.secondary_opts))
        options = {"-h", "--help", *spelled}
        if word.startswith("-") and word != "-":
            # Of short ones several may stand together: -vv.
            option = word.partition("=")[0] if word.startswith("--") else word[:2]
            if option not in options:
                return f"ultra {' '.join(names)} has no {option}"
        elif hasattr(here, "commands") and re.fullmatch(r"[a-z-]+", word):
            if command_of((*names, word)) is None:
                return f"ultra {' '.join(names)} has no command {word}"
            names = (*names, word)
    return None


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_and_option_in_a_page_exists(page: Path) -> None:
    found = {command: misuse(command) for command in commands_in(page)}

    assert {command: fault for command, fault in found.items() if fault} == {}


def test_the_pages_are_read_for_commands_at_all() -> None:
    known = commands_in(DOCS / "command.md")

    assert "ultra keys list" in known
    assert len(known) > 10
    assert misuse("ultra ask 'Why?' | less --nonsense") is None
    assert misuse("ultra ask --colour red 'Why?'") == "ultra ask has no --colour"
    assert misuse("ultra runs lost") == "ultra runs has no command lost"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_in_a_page_leads_to_a_file_and_a_heading_that_exist(page: Path) -> None:
    text = BLOCK.sub("", page.read_text("utf-8"))
    lost = []
    for address in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", address):
            continue
        path, _, anchor = address.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            lost.append(address)

    assert lost == []


@cache
def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text("utf-8")), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", re.sub(r"[`*]", "", heading)).strip().lower() for heading in headings)
    return {re.sub(r"[\s-]+", "-", heading) for heading in plain}


@pytest.mark.parametrize(("page", "program"), blocks("python"))
def test_what_a_program_in_a_page_imports_from_ultra_is_there(page: Path, program: str) -> None:
    code = compile(program, name_of(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
    for node in ast.walk(code):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "ultra":
            module = import_module(node.module or "")
            assert [name.name for name in node.names if not hasattr(module, name.name)] == []


class Invoice(msgspec.Struct):
    number: str


def passes_my_tests(answer: str) -> float:
    return 1.0


def answered(request: ModelRequest) -> str:
    """What any of the models of a page says: the form that a strategy asks for, or a short answer."""
    if request.output is not None:
        return '{"number": "7"}'
    return "coder" if "Name one model" in request.prompt else "42"


async def run(page: Path, program: str, known: dict[str, Any]) -> None:
    code = compile(program, name_of(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    awaitable = eval(code, known)
    if awaitable is not None:
        await awaitable


@pytest.mark.parametrize(("page", "program"), blocks("python", DOCS / "strategies", DOCS / "durable.md"))
async def test_a_program_in_a_page_of_a_strategy_or_of_journals_runs(
    page: Path,
    program: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)  # where it makes files
    known: dict[str, Any] = {name: getattr(strategies, name) for name in strategies.__all__}
    known |= {name: FakeModel(answered) for name in ("gpt_client", "claude_client")}
    known |= {"Invoice": Invoice, "passes_my_tests": passes_my_tests}
    known["orchestrator"] = orchestrator = MultiLLMOrchestrator()
    others = [name for name in ("coder", "mini") if f'"{name}"' in program]
    for name in ("gpt", "claude", "llama", *others):
        orchestrator.register_model(name, FakeModel(answered))

    await run(page, program, known)

    result = known["results"] if "results" in known else known["result"]
    assert result.status == "success"


@pytest.mark.parametrize(("page", "program"), blocks("python", DOCS / "service.md", DOCS / "moving.md"))
async def test_a_program_in_a_page_that_asks_a_service_gets_answers(page: Path, program: str) -> None:
    models = {name: FakeModel("42") for name in ("gpt", "claude", "gemini")}
    service = service_of(models, journal="memory")
    service.orchestrator.add_ensemble("ultra")
    async with serving(service) as address:
        code = program.replace("http://127.0.0.1:8080", address)
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="any")
        known = {"OpenAI": openai.OpenAI, "client": client, "time": time}
        await trio.to_thread.run_sync(exec, code, known)
    assert any(model.calls for model in models.values())


@pytest.mark.parametrize(("page", "commands"), blocks("sh", DOCS / "service.md", having="^curl "))
async def test_a_request_by_curl_in_the_page_of_the_service_is_answered(page: Path, commands: str) -> None:
    service = service_of({"gpt": FakeModel("42")}, journal="memory")
    service.orchestrator.add_ensemble("ultra")
    last: dict[str, Any] = {}
    async with client_of(service) as client:
        for command in commands.replace("\\\n", " ").splitlines():
            words = shlex.split(command)
            url = next(word for word in words if word.startswith("http://"))
            address = url.removeprefix("http://127.0.0.1:8080")
            for name in ("RUN", "BATCH"):
                address = address.replace(name, str(last.get("id")))
            headers = dict(words[at + 1].split(": ") for at, word in enumerate(words) if word == "-H")
            given = [words[at + 1] for at, word in enumerate(words) if word in {"-d", "--data-binary"}]
            body = LINES if given == ["@batch.jsonl"] else "".join(given)
            reply = await client.request("POST" if body else "GET", address, content=body, headers=headers)
            assert reply.is_success, reply.text
            if reply.headers["content-type"] == "application/json":
                last = reply.json()
            if not (last.get("background") or "batch" in address):
                assert "42" in reply.text


# Other blocks are files of other programs, or templates.
@pytest.mark.parametrize(
    ("page", "configuration"), blocks("toml", having=r"^\[+(models|ensembles|run|serve|journal|cache)\b")
)
def test_a_configuration_in_a_page_is_read(
    page: Path, configuration: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITELLM_KEY", "sk-0123456789")
    monkeypatch.setenv("ULTRA_WEBHOOK_SECRET", f"whsec_{base64.b64encode(bytes(32)).decode()}")
    path = tmp_path / "ultra.toml"
    # Pages show the part that they are about: the models are those of the page's other parts.
    for name in ("gpt", "claude", "gemini"):
        if f"[models.{name}]" not in configuration:
            configuration += f'\n[models.{name}]\nmodel = "openai:gpt-4o"\n'
    if "council" in configuration and "[ensembles.council]" not in configuration:
        configuration += "\n[ensembles.council]\n"
    path.write_text(configuration.replace("sha256:…", f"sha256:{'0' * 64}"), "utf-8")

    assert {"gpt", "claude", "gemini"} <= {*load_configuration(path).models}
