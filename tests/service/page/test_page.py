"""The files of the web page, and the addresses that it asks."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import pytest

from helpers.services import ask, service_of
from ultra import ModelError
from ultra.config.keys import KeyConfig, hash_of, new_key
from ultra.config.serving import ServeConfig
from ultra.messages.results import Usage
from ultra.scoring.agreement import agreed_at_once
from ultra.stores.contracts import LimitsUnavailable
from ultra.stores.memory_limits import MemoryLimits
from ultra.testing import FakeModel

STATIC = files("ultra.service.page") / "static"
LARGEST = 150 * 1024


def broken() -> FakeModel:
    return FakeModel(failures=[ModelError("secret words")] * 9)


async def get(path: str, headers: dict[str, str] | None = None) -> Any:
    service = service_of(
        {"a": FakeModel("Paris."), "b": FakeModel(failures=[ModelError("secret words")] * 9)}
    )
    async with service.running():
        return await ask(service, b"", path, method="GET", headers=headers or {})


async def test_the_page_may_load_nothing_from_elsewhere() -> None:
    answer = await get("/")

    policy = answer.headers["content-security-policy"]
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy


@pytest.mark.parametrize(
    "name", ["main.js", "page.css", "icon.svg", "vendor/marked.js", "vendor/LICENSES.txt"]
)
async def test_its_files_are_there(name: str) -> None:
    answer = await get(f"/page/{name}")

    assert (answer.status, answer.headers["x-content-type-options"]) == (200, "nosniff")
    assert answer.body == (STATIC / name).read_bytes()


@pytest.mark.parametrize(
    "path", ["/page/", "/page/../files.py", "/page/index.html", "/page/%2e%2e/x", "/page/vendor"]
)
async def test_nothing_else_is_there(path: str) -> None:
    assert (await get(path)).status == 404


async def test_a_browser_that_has_a_file_gets_it_no_second_time() -> None:
    tag = (await get("/page/main.js")).headers["etag"]

    again = await get("/page/main.js", {"if-none-match": f'"other", W/{tag}'})

    assert (again.status, again.body) == (304, b"")


def test_the_page_is_small_and_names_no_other_place() -> None:
    sources = [each for each in STATIC.iterdir() if each.is_file()]
    vendor = [each for each in (STATIC / "vendor").iterdir() if each.name.endswith(".js")]

    assert sum(len(each.read_bytes()) for each in [*sources, *vendor]) < LARGEST
    for each in sources:
        text = each.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(https?:)?//[a-z0-9.-]+\.[a-z]{2,}", text), each.name
        assert "innerHTML" not in text
        assert not re.search(r'\sstyle="|\son[a-z]+="', text), each.name


async def test_the_state_tells_no_words_of_errors() -> None:
    service = service_of(
        {"a": FakeModel("Paris."), "b": FakeModel(failures=[ModelError("secret words")] * 9)}
    )
    async with service.running():
        await ask(service, {"prompt": "Which city?", "ensemble": "council"}, "/v1/runs")
        answer = await ask(service, b"", "/v1/status", method="GET")

    told = answer.json
    assert told["models"]["a"]["requests"] == 1  # there was nothing to merge
    assert told["models"]["b"]["status"] == "degraded"
    assert told["models"]["a"]["circuit"] == "closed"
    assert (told["models"]["a"]["limits"]["in_flight"], told["models"]["a"]["limits"]["admitted"]) == (0, 1)
    assert [child["name"] for child in told["tree"]["children"]] == ["models", "coordinator"]
    assert b"secret words" not in answer.body
    assert (told["keeps_runs"], told["key"], told["limits"]) == (False, None, [])


async def test_a_key_sees_what_is_left_of_its_own_limits_and_looking_takes_nothing() -> None:
    own, other = new_key(), new_key()
    settings = ServeConfig(
        keys=(
            KeyConfig(name="alice", hash=hash_of(own), dollars_per_day=2.0, requests_per_minute=60),
            KeyConfig(name="bob", hash=hash_of(other)),
        ),
        assumed_price=1_000.0,
    )
    service = service_of({"a": FakeModel("Paris.", usage=Usage(input=500, output=500))}, settings=settings)
    alice, bob = ({"authorization": f"Bearer {key}"} for key in (own, other))
    async with service.running():
        before = await ask(service, b"", "/v1/status", method="GET", headers=alice)
        await ask(service, {"prompt": "Which city?", "model": "a"}, "/v1/runs", headers=alice)
        await ask(service, b"", "/v1/status", method="GET", headers=alice)
        after = await ask(service, b"", "/v1/status", method="GET", headers=alice)
        none = await ask(service, b"", "/v1/status", method="GET", headers=bob)

    def left(answer: Any) -> dict[str, float]:
        return {each["name"]: round(each["left"], 1) for each in answer.json["limits"]}

    assert left(before) == {"requests_per_minute": 60, "dollars_per_day": 2.0}
    assert left(after)["dollars_per_day"] == 1.0
    assert left(after)["requests_per_minute"] >= 59
    assert after.json["key"] == "alice"
    assert none.json["limits"] == []


async def test_the_state_is_told_where_the_limits_of_keys_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = new_key()
    settings = ServeConfig(keys=(KeyConfig(name="alice", hash=hash_of(key), dollars_per_day=2.0),))
    service = service_of({"a": FakeModel("Paris.")}, settings=settings)

    async def fail(_limits: object, _wants: object) -> None:
        raise LimitsUnavailable("down")

    monkeypatch.setattr(MemoryLimits, "take", fail)
    headers = {"authorization": f"Bearer {key}"}
    async with service.running():
        answer = await ask(service, b"", "/v1/status", method="GET", headers=headers)
    assert (answer.status, answer.json["limits"]) == (200, None)


async def test_the_strategies_are_told_by_name() -> None:
    assert {"synthesize", "vote", "best_of"} <= set((await get("/v1/strategies")).json["strategies"])


async def compared(body: object) -> Any:
    service = service_of({"a": FakeModel("Paris.")})
    async with service.running():
        return await ask(service, body, "/v1/agreement")


async def test_equal_final_answers_agree_wholly_and_others_by_their_words() -> None:
    answers = {
        "a": "The answer is 4.",
        "b": "Two and two are four, so the answer is 4.",
        "c": "The answer is 5.",
    }
    told = (await compared({"question": "2+2?", "answers": answers})).json

    pairs = told["pairs"]
    assert pairs["a"]["b"] == pairs["b"]["a"] == 1.0
    assert 0.0 <= pairs["a"]["c"] < 1.0
    assert all(pairs[name][name] == 1.0 for name in answers)
    assert told["finals"] == agreed_at_once("2+2?", answers).finals


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "answers"),
        ({"answers": {"a": 1}}, "answers"),
        ({"answers": {}, "more": 1}, "more"),
        ({"answers": {str(number): "x" for number in range(33)}}, "at most 32"),
    ],
)
async def test_a_wrong_comparison_says_what_is_wrong(body: object, told: str) -> None:
    answer = await compared(body)

    assert answer.status == 400
    assert told in answer.error["message"] + str(answer.error["param"])


async def test_one_answer_or_none_can_be_compared() -> None:
    assert (await compared({"answers": {}})).json["pairs"] == {}
    assert (await compared({"answers": {"a": "x"}})).json["pairs"] == {"a": {"a": 1.0}}
