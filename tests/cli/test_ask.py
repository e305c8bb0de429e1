"""`ultra ask` as a real process, with pipes, against a server that speaks the OpenAI dialect."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from helpers.chat_server import Script, chat_server
from helpers.command_line import PATIENCE, ULTRA, ended, environment, interrupt, run_ultra, ultra_running
from ultra.cli import app
from ultra.messages.results import OrchestrationResult

if TYPE_CHECKING:
    from collections.abc import Iterator

TWO = ("--model", "openai:first@2", "--model", "openai:second")
THREE_STAGES = ("--stages", "initial,meta,synthesis")
NO_KEYS = {"OPENAI_API_KEY": ""}


def broken() -> Script:
    """A model that fails for good at once: errors of the caller's are not retried."""
    return Script(status=400)


async def test_answers_analyses_and_the_synthesis_are_written_as_plain_text() -> None:
    async with chat_server(second=Script(("Surely ", "Paris."))) as server:
        done = await run_ultra(
            "ask", "Where?", *TWO, *THREE_STAGES, "--plain", *("--show", "analysis"), env=server.environment
        )

    output = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert "\x1b" not in output
    for stage in ("initial: first", "initial: second", "meta: first", "meta: second", "synthesis: first"):
        assert re.search(rf"^--- {stage}, \d+\.\d s$", output, re.MULTILINE)
    assert output.count("Surely Paris.\n") == 2
    assert re.search(
        r"^model +time +tokens +calls +agreement\nfirst  +\d+\.\d s +9 +3 .*\nsecond ", output, re.MULTILINE
    )


async def test_without_stages_nothing_is_analysed_and_what_all_say_stands_as_it_is() -> None:
    async with chat_server(first=Script(("It is Paris.",)), second=Script(("Paris",))) as server:
        done = await run_ultra("ask", "Where?", *TWO, "--json", env=server.environment)

    result = msgspec.json.decode(done.stdout, type=OrchestrationResult)
    assert [step.name for step in result.steps] == ["initial"]
    assert (result.synthesis_source, result.confidence) == ("unanimous", 1.0)


async def test_json_is_one_document_with_the_whole_result() -> None:
    async with chat_server(first=Script(("tab\t \x1b \x7f \x9b ", "漢字"))) as server:
        done = await run_ultra("ask", "Where?", *TWO, *THREE_STAGES, "--json", env=server.environment)

    assert (done.returncode, done.stderr) == (0, b"")
    result = msgspec.json.decode(done.stdout, type=OrchestrationResult)
    assert result.status == "success"
    assert result.final_synthesis is not None
    assert result.final_synthesis.content == "tab\t \x1b \x7f \x9b 漢字"
    assert [list(result.initial_responses), list(result.meta_responses)] == [["first", "second"]] * 2
    assert done.stdout.count(b"\n") == 1
    assert not {"\x1b", "\x7f", "\x9b"} & set(done.stdout.decode())


async def test_a_run_that_fails_is_one_line_on_stderr_and_1() -> None:
    async with chat_server(first=broken(), second=broken()) as server:
        done = await run_ultra("ask", "Where?", *TWO, env=server.environment)

    assert done.returncode == 1
    assert re.fullmatch(rb"ultra: .*the model is on strike.*the model is on strike.*\n", done.stderr)
    assert b"'first'" in done.stderr
    assert b"'second'" in done.stderr


async def test_with_json_a_run_that_fails_is_a_document_too() -> None:
    async with chat_server(first=broken(), second=broken()) as server:
        done = await run_ultra("ask", "Where?", *TWO, "--json", env=server.environment)

    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert (error["type"], error["stage"], set(error["failures"])) == (
        "QuorumNotReached",
        "initial",
        {"first", "second"},
    )
    assert done.stderr.count(b"\n") == 1


async def test_with_json_bad_usage_is_a_document_too() -> None:
    done = await run_ultra("ask", "Where?", "--model", "openia:gpt", "--json")

    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["type"] == "BadCall"


async def test_a_degraded_answer_is_an_answer_and_says_why_it_is_degraded() -> None:
    async with chat_server(first=broken()) as server:
        done = await run_ultra("ask", "Where?", *TWO, "--plain", env=server.environment)

    output = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert "--- initial: first, failed\n" in output
    assert "--- initial: second" in output
    assert "--- synthesis" not in output
    assert re.search(r"^degraded:\n- initial: .*the model is on strike", output, re.MULTILINE)
    assert re.search(r"^- only 'second' gave a usable answer", output, re.MULTILINE)


async def test_the_prompt_comes_from_stdin_and_the_system_prompt_with_it() -> None:
    async with chat_server() as server:
        done = await run_ultra(
            *("ask", "-", "--model", "openai:first", "--stages", "initial", "--system", "Be brief."),
            env=server.environment,
            stdin="Where is Köln?\n".encode(),
        )

        assert done.returncode == 0
        (request,) = server.scripts["first"].requests
        assert request["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Where is Köln?\n"},
        ]


async def test_images_and_documents_go_with_the_question(tmp_path: Path) -> None:
    image, note = tmp_path / "photo.png", tmp_path / "note.txt"
    image.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(16))
    note.write_text("a note")
    async with chat_server() as server:
        parts = ("--image", str(image), "--image", "https://example.org/b.png", "--file", str(note))
        done = await run_ultra(
            "ask", "What?", "--model", "openai:first", *parts, "--stages", "initial", env=server.environment
        )

    assert done.returncode == 0, done.stderr
    (message,) = server.scripts["first"].requests[0]["messages"]
    kinds = [part["type"] for part in message["content"]]
    assert kinds == ["text", "image_url", "image_url", "file"]
    assert message["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")
    assert message["content"][2]["image_url"]["url"] == "https://example.org/b.png"


async def test_a_file_that_is_no_image_is_bad_usage(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("words")
    done = await run_ultra("ask", "What?", *TWO, "--image", str(tmp_path / "x.png"))
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"of no known type; give a PNG, JPEG, GIF or WebP image" in done.stderr


async def test_with_a_schema_the_answer_is_json_that_satisfies_it(tmp_path: Path) -> None:
    path = tmp_path / "bill.json"
    path.write_text('{"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}')
    scripts = {name: Script(pieces=("Well: ", '{"total": 7}')) for name in ("first", "second")}
    async with chat_server(**scripts) as server:
        done = await run_ultra(
            *("ask", "How much?", *TWO, "--schema", str(path), "--strategy", "fields", "--json"),
            env=server.environment,
        )
        wrong = await run_ultra("ask", "How much?", *TWO, "--schema", __file__, env=server.environment)

    result = msgspec.json.decode(done.stdout, type=OrchestrationResult)
    assert (result.output, result.agreement) == ({"total": 7}, {"$.total": 1.0})
    assert (wrong.returncode, wrong.stdout) == (2, b"")
    assert b"--schema" in wrong.stderr


async def test_stages_and_models_can_be_chosen() -> None:
    async with chat_server() as server:
        done = await run_ultra(
            *("ask", "Where?", *TWO, "--models", "openai:second", "--stages", "initial, synthesis", "--json"),
            env=server.environment,
        )

    result = msgspec.json.decode(done.stdout, type=OrchestrationResult)
    assert {stage: list(answers) for stage, answers in result.stages.items()} == {
        "initial": ["second"],
        "synthesis": ["second"],
    }


async def test_a_strategy_can_be_chosen() -> None:
    three = [part for name in ("first", "second", "third") for part in ("--model", f"openai:{name}")]
    async with chat_server(second=Script(("The answer is 42.",)), third=Script(("**42**",))) as server:
        plain = await run_ultra(
            "ask", "How many?", *three, "--strategy", "vote", "--plain", env=server.environment
        )
        as_json = await run_ultra(
            "ask", "How many?", *three, "--strategy", "vote", "--json", env=server.environment
        )

    output = plain.stdout.decode()
    assert (plain.returncode, plain.stderr) == (0, b"")
    assert re.search(
        r"^--- answer: second\n.*^Done in .*, confidence \d\.\d\d$", output, re.MULTILINE | re.DOTALL
    )
    assert "--- meta" not in output
    result = msgspec.json.decode(as_json.stdout, type=OrchestrationResult)
    assert (result.strategy, str(result.final_synthesis)) == ("vote", "The answer is 42.")
    assert result.synthesis_source == "selected"


async def test_what_becomes_of_a_synthesis_that_is_cut_off_can_be_chosen() -> None:
    async with chat_server() as server:
        asked = ("ask", "Where?", "--model", "openai:first", "--on-cut")
        kept = await run_ultra(*asked, "next", "--json", env=server.environment)
        wrong = await run_ultra(*asked, "stop", env=server.environment)
        other = await run_ultra(*asked, "next", "--strategy", "vote", env=server.environment)

    assert kept.returncode == 0
    assert (wrong.returncode, other.returncode) == (2, 2)
    assert "--on-cut is 'stop'; give one of: tell, continue, next" in wrong.stderr.decode()
    assert "strategy 'vote' has no option 'on_cut'" in other.stderr.decode()


STRATEGY = """\
from ultra.strategies import Answer


class Heaviest:
    async def run(self, context):
        with context.step("initial"):
            return Answer(await context.ask_first(context.request, required=True), "selected")
"""


async def test_a_class_of_ones_own_in_the_working_directory_is_a_strategy_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(STRATEGY, "utf-8")
    monkeypatch.chdir(tmp_path)
    async with chat_server() as server:
        done = await run_ultra(
            "ask", "Where?", *TWO, "--strategy", "mine:Heaviest", "--json", env=server.environment
        )

    assert (done.returncode, done.stderr) == (0, b"")
    result = msgspec.json.decode(done.stdout, type=OrchestrationResult)
    assert result.strategy == "Heaviest"
    assert [list(step.by_model) for step in result.steps] == [["first"]]


async def test_the_strategy_of_the_example_works_from_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2] / "examples")
    three = [part for name in ("first", "second", "third") for part in ("--model", f"openai:{name}")]
    async with chat_server(second=Script(("I say Rome.",))) as server:
        done = await run_ultra(
            *("ask", "Where?", *three, "--strategy", "custom_strategy:SecondOpinion", "--json"),
            env=server.environment,
        )

    assert (done.returncode, done.stderr) == (0, b"")
    result = msgspec.json.decode(done.stdout, type=OrchestrationResult)
    assert [(step.name, sorted(step.by_model)) for step in result.steps] == [
        ("initial", ["first", "second"]),
        ("decision", ["third"]),
    ]
    assert (result.strategy, result.synthesis_source) == ("SecondOpinion", "primary")


async def test_with_a_quorum_of_all_one_failure_fails_the_run() -> None:
    async with chat_server(second=broken()) as server:
        done = await run_ultra("ask", "Where?", *TWO, "--quorum", "all", env=server.environment)

    assert done.returncode == 1
    assert b"got 1 of the 2 answers" in done.stderr


async def test_a_run_ends_when_its_time_is_over() -> None:
    async with chat_server(first=Script(gate=trio.Event())) as server:
        done = await run_ultra(
            "ask", "?", "--model", "openai:first", "--timeout", "0.1", env=server.environment
        )

    assert done.returncode == 1
    assert re.fullmatch(rb"ultra: .*did not answer in time.*\n", done.stderr)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["", *TWO], "there is no question; give one"),
        (["-", *TWO], "there is no question; give one"),
        (["?", "--model", "openia:gpt"], "no provider 'openia'; the providers are: local, openai"),
        (["?", "--model", "local:loud"], "careful, creative, concise"),
        (["?", "--model", "gpt"], r"'gpt' is not provider:model\[@weight\]"),
        (["?", "--model", "openai:gpt@much"], "the weight 'much' .* is no number"),
        (["?", "--model", "openai:gpt@-1"], r"the weight is -1\.0; it must be a finite number, 0 or more"),
        (["?", "--model", "openai:gpt@nan"], "the weight is nan; it must be a finite number, 0 or more"),
        (["?", "--model", "openai:gpt", "--model", "openai:gpt"], "'openai:gpt' is given 2 times"),
        (["?", *TWO, "--models", "third"], "unknown model 'third'; registered: first, second"),
        (["?", *TWO, "--models", ","], "models is empty; .*first, second"),
        (["?", *TWO, "--stages", "initial,met"], "unknown stage 'met'; there are: initial, meta, synthesis"),
        (["?", *TWO, "--stages", "synthesis"], "'synthesis' reads stage 'initial', which must come before"),
        (["?", *TWO, "--stages", ","], "stages is empty; give at least one of: initial, meta, synthesis"),
        (
            ["?", *TWO, "--strategy", "vot"],
            "unknown strategy 'vot'; there are: synthesize, vote, self_consistency",
        ),
        (["?", *TWO, "--strategy", "no_such:Class"], "'no_such:Class' cannot be loaded: ModuleNotFoundError"),
        (["?", *TWO, "--strategy", "os:getcwd"], "'os:getcwd' is <built-in .*; it must be a class with"),
        (["?", *TWO, "--strategy", "vote", "--stages", "initial"], "strategy 'vote' has no stages; leave"),
        (["?", *TWO, "--quorum", "most"], "'most'; give a number of models, or all"),
        (["?", *TWO, "--quorum", "3"], r"the quorum is 3; it must be 'all', or .* \(2\)"),
        (["?", *TWO, "--timeout", "0"], r"timeout is 0\.0; it must be a number of seconds above 0"),
        (["?", *TWO, "--timeout", "nan"], "timeout is nan; it must be a number of seconds above 0"),
    ],
)
def test_bad_usage_names_what_is_allowed(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not-a-real-key")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))

    assert app.run(["ask", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert re.fullmatch(f"ultra: .*{message}.*\n", output.err), output.err


async def test_bad_usage_asks_nobody() -> None:
    async with chat_server() as server:
        done = await run_ultra("ask", "Where?", *TWO, "--quorum", "3", env=server.environment)

    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.count(b"\n") == 1
    assert server.scripts == {}


async def test_a_provider_without_its_key_is_bad_usage() -> None:
    done = await run_ultra("ask", "?", "--model", "openai:gpt", env=NO_KEYS)

    assert done.returncode == 2
    assert b"OPENAI_API_KEY" in done.stderr


@pytest.mark.parametrize("options", [(), ("--json",)])
async def test_nobody_reading_the_output_ends_it_without_a_word(options: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    async with (
        chat_server() as server,
        ultra_running("ask", "Where?", *TWO, *options, env=server.environment, stdout=writer) as process,
    ):
        os.close(writer)

        assert await ended(process) == (141, "")


@pytest.fixture
def full_device() -> Iterator[int]:
    """A file that every write to fails."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with Path("/dev/full").open("wb") as full:
        yield full.fileno()


async def test_output_that_cannot_be_written_is_one_line_and_1(full_device: int) -> None:
    async with (
        chat_server() as server,
        ultra_running("ask", "Where?", *TWO, env=server.environment, stdout=full_device) as process,
    ):
        code, errors = await ended(process)

    assert code == 1
    assert re.fullmatch(r"ultra: the operating system reports: .*\n", errors)


async def test_without_a_stdout_it_runs_all_the_same() -> None:
    async with chat_server() as server:
        done = await trio.run_process(
            ["sh", "-c", 'exec "$@" >&-', "sh", *ULTRA, "ask", "Where?", *TWO],
            env=environment(server.environment),
            capture_stderr=True,
            check=False,
        )

    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("signals", "code"),
    [([signal.SIGINT], 130), ([signal.SIGINT, signal.SIGINT], 130), ([signal.SIGTERM], 143)],
)
async def test_a_signal_in_the_middle_closes_everything_without_a_word(signals: list[int], code: int) -> None:
    script = Script(gate=trio.Event())
    async with (
        chat_server(first=script) as server,
        ultra_running("ask", "Where?", "--model", "openai:first", env=server.environment) as process,
    ):
        with trio.fail_after(PATIENCE):
            await script.asked.wait()
        for number in signals:
            interrupt(process, number)

        assert await ended(process) == (code, "")
        with trio.fail_after(PATIENCE):
            await script.broken.wait()


async def test_ctrl_c_while_the_prompt_is_read_ends_it_without_a_word() -> None:
    async with ultra_running("ask", "-", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        with trio.fail_after(PATIENCE):
            await process.stdin.send_all(b"?" * 1_000_000)  # more than the pipe holds: so it reads
            # A signal between two system calls is noticed after the second: who waits, presses again.
            while process.poll() is None:
                interrupt(process)
                with trio.move_on_after(1):
                    await process.wait()

        assert await ended(process) == (130, "")


async def test_failed_attempts_are_logged_to_stderr_if_asked_for_and_else_nowhere() -> None:
    async with chat_server(first=broken()) as server:
        quiet = await run_ultra("ask", "Where?", *TWO, "--stages", "initial", env=server.environment)
        loud = await run_ultra("ask", "Where?", *TWO, "--stages", "initial", "-v", env=server.environment)

    assert quiet.stderr.startswith(b"ultra: degraded answer: ")
    assert b"attempt failed" not in quiet.stderr
    assert b"attempt failed" in loud.stderr
    assert b"attempt failed" not in loud.stdout
    assert b"not-a-real-key" not in loud.stderr
