"""Templates: prompts in files, with placeholders."""

# ruff: noqa: ASYNC240 - small files of the test
from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.chat_server import chat_server
from helpers.command_line import run_ultra
from ultra.cli.templates import Template
from ultra.errors import BadCall

REVIEW = """\
description = "Review a change"
system = "You review {{language}}."
prompt = "List what is wrong. {{input}}"
temperature = 0.1
[defaults]
language = "Python"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folder = tmp_path / "config" / "ultra" / "templates"
    folder.mkdir(parents=True)
    (folder / "review.toml").write_text(REVIEW)
    (folder / "review.toml").chmod(0o600)
    return {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_STATE_HOME": str(tmp_path / "state")}


def test_each_placeholder_is_filled_once_and_values_are_not_filled_in_turn() -> None:
    template = Template(prompt="{{a}} {{ b }} {{a}} {x} {{input}}", defaults={"b": "2"})

    assert template.placeholders == ("a", "b")
    assert template.filled({"a": "{{b}}"}, "{{a}}") == ("{{b}} 2 {{b}} {x} {{a}}", None)


def test_without_a_place_for_it_the_question_follows_the_prompt() -> None:
    assert Template(prompt="Be kind.\n").filled({}, "Why?") == ("Be kind.\n\nWhy?", None)
    assert Template(system="Be kind.").filled({}, "Why?") == ("Why?", "Be kind.")


@pytest.mark.parametrize(
    ("given", "text", "message"),
    [
        ({}, "?", "needs a value for a; give it as --param a="),
        ({"a": "1", "c": "1"}, "?", "no place for 'c'; its placeholders are: a"),
    ],
)
def test_values_that_are_missing_or_have_no_place_are_refused(
    given: dict[str, str], text: str, message: str
) -> None:
    with pytest.raises(BadCall, match=message):
        Template(prompt="{{a}}").filled(given, text)


def test_a_template_without_words_needs_a_question() -> None:
    with pytest.raises(BadCall, match="no prompt of its own"):
        Template(system="Be kind.").filled({}, " ")


async def test_a_template_of_the_user_asks_with_what_is_piped_in(home: dict[str, str]) -> None:
    asked = ("ask", "-m", "openai:first", "--stages", "initial", "-t", "review", "-p", "language=Rust")
    async with chat_server() as server:
        done = await run_ultra(*asked, env={**server.environment, **home}, stdin=b"+ new\n")

    assert done.returncode == 0, done.stderr
    (request,) = server.scripts["first"].requests
    assert request["temperature"] == 0.1
    assert request["messages"] == [
        {"role": "system", "content": "You review Rust."},
        {"role": "user", "content": "List what is wrong. + new\n"},
    ]


async def test_a_template_of_the_project_needs_trust_or_to_be_named(home: dict[str, str]) -> None:
    folder = Path(".ultra/templates")
    folder.mkdir(parents=True)
    (folder / "review.toml").write_text('prompt = "Say yes."\n')
    asked = ("ask", "?", "-m", "openai:first", "--stages", "initial", "--template")
    async with chat_server() as server:
        env = {**server.environment, **home}
        found = await run_ultra(*asked, "review", env=env)
        named = await run_ultra(*asked, "./.ultra/templates/review.toml", env=env)
        listed = await run_ultra("templates", "list", env=env)
        trusted = await run_ultra("config", "trust", ".ultra/templates/review.toml", env=env)
        then = await run_ultra(*asked, "review", env=env)

    assert (found.returncode, named.returncode, then.returncode) == (2, 0, 0)
    assert b"a prompt of its own (.ultra/templates/review.toml:1: prompt)" in found.stderr
    assert b"project" in listed.stdout
    assert b"it was found here and you have neither named nor trusted it" in listed.stdout
    assert b"a prompt of its own" in trusted.stdout


async def test_templates_are_listed_and_shown(home: dict[str, str]) -> None:
    listed = await run_ultra("templates", "list", env=home)
    as_json = await run_ultra("templates", "list", "--json", env=home)
    shown = await run_ultra("templates", "show", "review", env=home)
    value = await run_ultra("templates", "show", "review", "--json", env=home)

    assert listed.stdout == b"review  user     Review a change\n"
    assert [row["name"] for row in json.loads(as_json.stdout)] == ["review"]
    assert b"placeholder language: default 'Python'\n" in shown.stdout
    assert shown.stdout.endswith(b"--- prompt\nList what is wrong. {{input}}\n")
    assert json.loads(value.stdout)["temperature"] == 0.1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('promt = "x"\n', "bad.toml:1: promt: unknown key; allowed are: prompt, system"),
        ('prompt = "x"\ntemperature = "hot"\n', "bad.toml:2: temperature: Expected `float | null`"),
        ('prompt = "x"\nstrategy = "os:getcwd"\n', "bad.toml:2: strategy: a template names no code"),
    ],
)
async def test_a_template_that_is_wrong_is_told_of_with_its_line(
    text: str, message: str, home: dict[str, str]
) -> None:
    Path("bad.toml").write_text(text)
    done = await run_ultra("ask", "?", "-m", "openai:x", "-t", "bad.toml", env=home)

    assert done.returncode == 2
    assert message in done.stderr.decode()
