from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.command_line import run_ultra
from ultra.cli.arguments import (
    EMBEDDED_MODELS,
    ON_CUT,
    Question,
    RequestedModel,
    parse_model,
    parse_models,
    parse_names,
    parse_quorum,
)
from ultra.cli.piped_text import read_prompt
from ultra.errors import BadCall
from ultra.stores.journal_sqlite import SqliteJournal
from ultra.strategies.synthesize import OnCut

if TYPE_CHECKING:
    from pathlib import Path

providers = st.from_regex(r"[a-z]+", fullmatch=True)
model_names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(providers, model_names, st.floats(min_value=0, allow_infinity=False))
def test_the_weight_is_what_follows_the_last_at_whatever_the_name_has(
    provider: str, name: str, weight: float
) -> None:
    model = parse_model(f"{provider}:{name}@{weight}")

    assert model == RequestedModel(f"{provider}:{name}", weight)
    assert model.short_name == name


@given(providers, model_names.filter(lambda name: "@" not in name))
def test_a_model_without_a_weight_weighs_1(provider: str, name: str) -> None:
    assert parse_model(f"{provider}:{name}") == RequestedModel(f"{provider}:{name}", 1.0)


@pytest.mark.parametrize("weight", ["", "heavy", "1,5", "0x10"])
def test_a_weight_that_is_no_number_is_refused_and_the_way_out_named(weight: str) -> None:
    with pytest.raises(BadCall, match=f"weight {weight!r}.*is no number.*openai:gpt@{weight}@1"):
        parse_model(f"openai:gpt@{weight}")


@pytest.mark.parametrize("text", ["", "careful", ":careful", "local:", "@2", "local:@2"])
def test_what_is_not_provider_and_model_is_refused(text: str) -> None:
    with pytest.raises(BadCall, match=r"provider:model\[@weight\]"):
        parse_model(text)


def test_a_model_that_is_given_twice_is_refused() -> None:
    with pytest.raises(BadCall, match="'local:careful' is given 2 times"):
        parse_models(["local:careful@1", "local:careful@2"])


def test_models_are_named_without_their_provider_unless_two_would_share_the_name() -> None:
    question = Question(prompt="?", models=parse_models(["openai:gpt", "azure:gpt", "ollama:llama3:8b"]))

    assert list(question.names()) == ["openai:gpt", "azure:gpt", "llama3:8b"]


def test_a_subset_can_be_named_with_and_without_the_provider() -> None:
    question = Question(
        prompt="?",
        models=parse_models(EMBEDDED_MODELS),
        chosen=parse_names(["local:careful, concise", "other"]),
    )

    assert question.chosen_names() == ["careful", "concise", "other"]


def test_names_may_have_commas_between_them_and_the_option_be_repeated() -> None:
    assert parse_names(["initial, meta", "synthesis"]) == ("initial", "meta", "synthesis")
    assert parse_names([","]) == ()
    assert parse_names([]) is None


@pytest.mark.parametrize(("text", "quorum"), [(None, None), ("all", "all"), ("2", 2)])
def test_a_quorum_is_a_number_or_all(text: str | None, quorum: object) -> None:
    assert parse_quorum(text) == quorum


def test_a_quorum_of_another_kind_is_refused() -> None:
    with pytest.raises(BadCall, match="'most'; give a number of models, or all"):
        parse_quorum("most")


def stdin_with(data: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data), encoding="ascii")


@pytest.mark.parametrize("data", [b"Gr\xc3\xbc\xc3\x9fe?\n", b"\xef\xbb\xbfGr\xc3\xbc\xc3\x9fe?\n"])
def test_a_dash_reads_the_prompt_from_stdin_in_utf_8(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", stdin_with(data))

    assert read_prompt("-") == "Grüße?\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "there is no question"), (b" \n", "there is no question"), (b"ab\xff", "not UTF-8.*at byte 2")],
)
def test_stdin_without_a_prompt_is_refused(
    data: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin_with(data))

    with pytest.raises(BadCall, match=message):
        read_prompt("-")


def test_a_closed_stdin_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)

    with pytest.raises(BadCall, match="stdin, which is closed"):
        read_prompt("-")


def test_what_may_become_of_a_cut_synthesis_is_what_the_strategy_takes() -> None:
    assert get_args(OnCut) == ON_CUT


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ask", "x", "-m", "gpt-4o"), "did you mean 'openai:gpt-4o'?"),
        (("ask", "x", "-m", "gemini"), "did you mean 'gemini:gemini-2.5-flash'?"),
        (("ask", "x", "-m", "opnai:gpt-4o"), "did you mean 'openai'?"),
        (("ask", "x", "-m", "openai:gpt-4o", "--strategy", "votee"), "did you mean 'vote'?"),
        (("ask", "x", "-m", "openai:gpt-4o", "--models", "gpt-4"), "did you mean 'gpt-4o'?"),
        (("log", "show", "zzzz"), "'ultra log' lists those that there are"),
        (("log", "show", "z"), "give at least 4 characters of its id"),
    ],
)
async def test_a_name_that_is_nearly_right_is_told(
    arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    env = {"OPENAI_API_KEY": "k", "XDG_DATA_HOME": str(tmp_path)}
    (tmp_path / "ultra").mkdir()
    await SqliteJournal(tmp_path / "ultra" / "runs.db").aclose()
    done = await run_ultra(*arguments, env=env)

    assert (done.returncode, done.stdout) == (2, b"")
    assert words in done.stderr.decode()
