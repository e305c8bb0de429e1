"""`ultra ask --ensemble`: each strategy as an ensemble of `ultra.toml`, and options of single models."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from helpers.chat_server import Script, chat_server
from helpers.command_line import run_ultra
from ultra.cli.arguments import parse_pairs, split_by_model
from ultra.errors import BadCall
from ultra.strategies import strategy_names

if TYPE_CHECKING:
    from pathlib import Path

MODELS = "".join(f'[models.{name}]\nmodel = "openai:{name}"\n\n' for name in ("one", "two", "three"))
OPTIONS = {
    "synthesize": '{ analysts = "one", keep_unanimous = true }',
    "vote": '{ rule = "plurality", weights = { one = 2.0, two = 1.0, three = 0.5 }, judge = "one" }',
    "self_consistency": '{ samples = 3, model = "two" }',
    "best_of": '{ judge = "one" }',
    "rank": '{ top = 2, writer = "three" }',
    "cascade": '{ first = 2, order = ["three", "two", "one"], threshold = 0.9, end = "last" }',
    "layers": '{ rounds = 2, writer = "one" }',
    "debate": '{ rounds = 1, end = "judge", judge = "two" }',
    "route": '{ chooser = "one", most = 2, about = { two = "towns" }, strategy = "vote" }',
    "fields": '{ judge = "one" }',
}


def configured(folder: Path, ensemble: str) -> str:
    path = folder / "ultra.toml"
    path.write_text(f"{MODELS}\n{ensemble}\n", "utf-8")
    return str(path)


def test_every_strategy_of_the_catalog_is_tried_here() -> None:
    assert {*OPTIONS} == {*strategy_names()}


@pytest.mark.parametrize("strategy", OPTIONS)
async def test_every_strategy_with_its_options_is_an_ensemble_of_the_configuration(
    strategy: str, tmp_path: Path
) -> None:
    # These may ask one model alone.
    quorum = 1 if strategy in {"self_consistency", "route"} else 2
    path = configured(
        tmp_path,
        f'[ensembles.council]\nstrategy = "{strategy}"\noptions = {OPTIONS[strategy]}\n'
        f"quorum = {quorum}\ngrace = 8\n",
    )
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}')
    towns = {"one": "Paris", "two": "Lyon", "three": "Paris"}
    said = {name: f'{{"town": "{town}"}}' if strategy == "fields" else town for name, town in towns.items()}
    async with chat_server(**{name: Script((text,)) for name, text in said.items()}) as server:
        done = await run_ultra(
            *("ask", "Which town?", "--config", path, "--ensemble", "council", "--json"),
            *(("--schema", str(schema)) if strategy == "fields" else ()),
            env=server.environment,
        )
    assert done.returncode == 0, done.stderr.decode()
    result = json.loads(done.stdout)
    assert result["strategy"] == strategy
    assert result["final_synthesis"]["content"].strip('{}"').endswith(("Paris", "Lyon"))
    assert result["status"] in {"success", "degraded"}


@pytest.mark.parametrize(
    ("ensemble", "told"),
    [
        ('strategy = "voting"', "unknown strategy 'voting'; there are: synthesize, vote, self_consistency"),
        ('strategy = "rank"\noptions = { best = 2 }', "no option 'best'; it has: top, rankers, writer"),
        ('strategy = "rank"\noptions = { top = 0 }', "top is 0"),
        ('strategy = "rank"\noptions = { writer = "four" }', "'four', which is none of the models"),
        ('strategy = "cascade"\noptions = { threshold = 2.0 }', "threshold is 2"),
        ('strategy = "vote"\noptions = { weights = { one = 1.0 } }', "weights has none for 'two'"),
        ('strategy = "route"', "needs one of choose="),
        ('strategy = "vote"\nstages = ["initial"]', "has no stages"),
        ("options = { top = 2 }", "options are those of a strategy"),
        ('strategy = "fields"', "merges structured answers; give their form with output="),
    ],
)
async def test_what_is_wrong_with_an_ensemble_is_told_with_what_is_allowed(
    ensemble: str, told: str, tmp_path: Path
) -> None:
    path = configured(tmp_path, f"[ensembles.council]\n{ensemble}\n")
    async with chat_server() as server:
        done = await run_ultra("ask", "?", "--config", path, "--ensemble", "council", env=server.environment)
    assert done.returncode == 2
    assert told in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


async def test_a_vote_without_final_answers_falls_back_on_a_reader_and_tells() -> None:
    texts = {"first": "It was a long day by the sea.", "second": "Nobody came, and the rain went on."}
    async with chat_server(**{name: Script((text,)) for name, text in texts.items()}) as server:
        done = await run_ultra(
            *("ask", "Tell a story.", "--model", "openai:first", "--model", "openai:second"),
            *("--strategy", "vote", "--json"),
            env=server.environment,
        )
    assert done.returncode == 0
    (notice,) = json.loads(done.stdout)["notices"]
    assert "a model read the whole answers and decided" in notice


# --- options of single models ------------------------------------------------------------------------------


def test_the_name_of_an_option_follows_the_last_dot() -> None:
    given = {"top_p": 0.9, "gpt-4.1.temperature": 0.2, "gpt-4.1.seed": 7, "b.role": "You doubt."}
    assert split_by_model(given) == (
        {"top_p": 0.9},
        {"gpt-4.1": {"temperature": 0.2, "seed": 7}, "b": {"role": "You doubt."}},
    )


@pytest.mark.parametrize("name", [".temperature", "."])
def test_an_option_of_no_model_is_refused(name: str) -> None:
    with pytest.raises(
        BadCall, match=r"no model stands before the dot; give (\w+)=VALUE, or MODEL\.\1=VALUE for one"
    ):
        split_by_model({name: 1})


@pytest.mark.parametrize("given", ["gpt-4.1.", "gpt-4.1.=1"])
def test_a_model_without_a_name_of_an_option_is_told_what_is_missing(given: str) -> None:
    told = "--option 'gpt-4.1.' names the model 'gpt-4.1' and none of its options"
    with pytest.raises(BadCall, match=f"{re.escape(told)}; give one .*such as gpt-4.1.top_p=0.9"):
        split_by_model(parse_pairs("--option", [given]))


async def test_an_option_can_be_that_of_one_model_alone() -> None:
    async with chat_server() as server:
        done = await run_ultra(
            *("ask", "Where?", "--model", "openai:gpt-4.1", "--model", "openai:second"),
            *("--option", "top_p=0.9", "--option", "gpt-4.1.temperature=0.2", "--temperature", "0.7"),
            *("--option", "openai:second.role=You doubt."),
            env=server.environment,
        )
        first, second = (server.scripts[name].requests[0] for name in ("gpt-4.1", "second"))
    assert done.returncode == 0, done.stderr.decode()
    assert (first["temperature"], first["top_p"]) == (0.2, 0.9)
    assert (second["temperature"], second["top_p"]) == (0.7, 0.9)
    assert "You doubt." in json.dumps(second["messages"])
    assert "You doubt." not in json.dumps(first["messages"])


async def test_an_option_of_one_model_goes_before_that_of_the_ensemble_and_the_rest_stays(
    tmp_path: Path,
) -> None:
    path = configured(
        tmp_path,
        '[ensembles.council]\nstrategy = "best_of"\n'
        '[ensembles.council.per_model.one]\ntemperature = 0.9\nseed = 7\nrole = "You doubt."\n'
        "[ensembles.council.per_model.two]\nseed = 8\n",
    )
    async with chat_server() as server:
        done = await run_ultra(
            *("ask", "Where?", "--config", path, "--ensemble", "council", "--option", "one.temperature=0.1"),
            env=server.environment,
        )
        one, two = (server.scripts[name].requests[0] for name in ("one", "two"))
    assert done.returncode == 0, done.stderr.decode()
    assert (one["temperature"], one["seed"], two["seed"]) == (0.1, 7, 8)
    assert "You doubt." in json.dumps(one["messages"])


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("third.temperature=0.2", "unknown model 'third'"),
        ("first.temperature=hot", "temperature"),
        (".temperature=1", "give temperature=VALUE, or MODEL.temperature=VALUE"),
        ("first.warmth=1", "warmth"),
    ],
)
async def test_a_wrong_option_of_a_model_is_told(option: str, told: str) -> None:
    async with chat_server() as server:
        done = await run_ultra(
            *("ask", "?", "--model", "openai:first", "--option", option), env=server.environment
        )
    assert done.returncode == 2
    assert told in done.stderr.decode()
