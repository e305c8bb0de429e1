"""Strategies by name: Ultra's own, those of other packages, and classes that a user points at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from msgspec import Struct

from helpers.packages import install
from ultra import BadCall, MultiLLMOrchestrator
from ultra.strategies import Answer, BestOf, RunContext, Stage, StrategySpec, Synthesize, Vote
from ultra.strategies.catalog import load_strategy, make_strategy, spec_of, strategy_names, strategy_options
from ultra.strategies.stages import INITIAL, SYNTHESIS
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from pathlib import Path

OWN = (
    "synthesize",
    "vote",
    "self_consistency",
    "best_of",
    "rank",
    "cascade",
    "layers",
    "debate",
    "route",
    "fields",
)
CHOICES = ", ".join(OWN)

METHOD = r"'async def run\(self, context\)'"


class First:
    """A strategy that is no Struct: the answer of the heaviest model."""

    def __init__(self, times: int = 1) -> None:
        if times < 1:
            raise ValueError("times must be at least 1")
        self.times = times

    async def run(self, context: RunContext) -> Answer:
        with context.step("initial"):
            return Answer(await context.ask_first(context.request, required=True), "selected")


class Mine(Struct, frozen=True):
    """A strategy of a user's own, with options."""

    depth: int = 1

    async def run(self, context: RunContext) -> Answer:
        return await First().run(context)


an_object = Mine(depth=3)


# --- names ------------------------------------------------------------------------------------------


def test_the_names_are_those_of_ultra() -> None:
    assert strategy_names() == OWN


@pytest.mark.parametrize(("name", "kind"), [("synthesize", Synthesize), ("vote", Vote), ("best_of", BestOf)])
def test_a_name_stands_for_a_strategy(name: str, kind: type) -> None:
    assert make_strategy(name) == kind()


def test_options_go_with_a_name_and_are_checked() -> None:
    assert make_strategy("synthesize", {"stages": ["initial"]}) == Synthesize(stages=("initial",))
    assert make_strategy("best_of", {"verify": len}) == BestOf(verify=len)


def test_an_object_with_the_method_is_a_strategy_itself() -> None:
    given = First()
    assert make_strategy(given) is given


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (
            "vot",
            None,
            f"unknown strategy 'vot'; there are: {CHOICES}; did you mean 'vote'[?]$",
        ),
        ("", None, f"unknown strategy ''; there are: {CHOICES}$"),
        ("collections:Counter", None, "unknown strategy 'collections:Counter'"),
        ("vote", {"rounds": 2}, "strategy 'vote' has no option 'rounds'; it has: weights"),
        ("synthesize", {"stags": []}, "strategy 'synthesize' has no option 'stags'; it has: stages"),
        (
            "synthesize",
            {"stages": "initial"},
            r"an option of strategy 'synthesize' is not allowed.*\$.stages",
        ),
        ("best_of", {"verify": "yes"}, r"an option of strategy 'best_of' is not allowed.*\$.verify"),
        (Vote(), {"x": 1}, "options go with the name of a strategy; an object has its own"),
        (
            7,
            None,
            f"strategy is 7; give one of {CHOICES}, or an object with {METHOD}",
        ),
        (Vote, None, "strategy is <class.*; give one of"),
        (object(), None, "strategy is <object"),
        (StrategySpec("vot"), None, "unknown strategy 'vot'"),
    ],
)
def test_what_is_no_strategy_is_refused_with_what_is_allowed(given: Any, options: Any, message: str) -> None:
    with pytest.raises(BadCall, match=message):
        make_strategy(given, options)


@pytest.mark.parametrize(
    "strategy",
    [
        Synthesize(),
        Synthesize(stages=("initial", "synthesis")),
        Synthesize(stages=(INITIAL, SYNTHESIS)),
        Vote(),
        BestOf(),
    ],
    ids=repr,
)
def test_a_strategy_as_a_value_makes_the_same_strategy(strategy: Any) -> None:
    assert make_strategy(spec_of(strategy)) == strategy


@pytest.mark.parametrize(
    ("strategy", "name"),
    [
        (BestOf(verify=bool), "best_of"),
        (Synthesize(stages=(Stage(name="mine", prompt=repr),)), "synthesize"),
        (First(2), "First"),
        (an_object, "Mine"),
    ],
)
def test_of_a_strategy_whose_options_are_no_values_the_name_is_left(strategy: Any, name: str) -> None:
    spec = spec_of(strategy)
    assert spec.name == name
    assert spec.options == ({"depth": 3} if strategy is an_object else {})


# --- classes that a user points at --------------------------------------------------------------------


def test_a_class_is_loaded_by_its_module_and_name() -> None:
    here = __name__
    assert load_strategy(f"{here}:Mine", {"depth": 2}) == Mine(depth=2)
    assert isinstance(load_strategy(f"{here}:First"), First)
    assert load_strategy(f"{here}:an_object") is an_object
    assert load_strategy("vote") == Vote()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("no_such_module:Mine", {}, "strategy 'no_such_module:Mine' cannot be loaded: ModuleNotFoundError"),
        (f"{__name__}:Nobody", {}, "cannot be loaded: AttributeError.*has no attribute 'Nobody'"),
        (":Mine", {}, "cannot be loaded: ValueError: Empty module name"),
        (
            "os:system",
            {"command": "exit"},
            f"is <built-in function system>; it must be a class with {METHOD}",
        ),
        ("collections:Counter", {}, f"is <class 'collections.Counter'>; it must be a class with {METHOD}"),
        (f"{__name__}:Mine", {"deep": 2}, "has no option 'deep'; it has: depth"),
        (f"{__name__}:Mine", {"depth": "x"}, r"is not allowed: Expected `int`, got `str` - at `\$.depth`"),
        (f"{__name__}:First", {"time": 2}, "cannot be made with these options: TypeError.*'time'"),
        (f"{__name__}:First", {"times": 0}, "cannot be made with these options: ValueError: times must be"),
        (f"{__name__}:an_object", {"depth": 2}, "an object has its own"),
        (
            "vot",
            {},
            f"there are: {CHOICES}, or a class of your own as package.module:Class",
        ),
    ],
)
def test_a_class_that_cannot_be_loaded_says_why(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadCall, match=message):
        load_strategy(name, options)


# --- other packages -----------------------------------------------------------------------------------

PACKAGE = '''
from msgspec import Struct
from ultra.strategies import Answer


class Longest(Struct, frozen=True):
    """The longest answer."""

    least: int = 0

    async def run(self, context):
        with context.step("initial"):
            responses = await context.ask_all(context.request)
        return Answer(max(responses, key=lambda response: len(response.content)), "selected")


def make(least: int = 5) -> Longest:
    return Longest(least)


a_number = 7


def nothing():
    return None
'''

ENTRY_POINTS = {
    "longest": "strategies_of_others:Longest",
    "made": "strategies_of_others:make",
    "broken": "strategies_of_others_that_are_not_there:Longest",
    "absent": "strategies_of_others:Absent",
    "number": "strategies_of_others:a_number",
    "nothing": "strategies_of_others:nothing",
    "vote": "strategies_of_others:Longest",
}


@pytest.fixture
def others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package is installed, as far as the import system can tell."""
    install(
        monkeypatch,
        tmp_path,
        name="others",
        group="ultra.strategies",
        entry_points=ENTRY_POINTS,
        modules={"strategies_of_others": PACKAGE},
    )


@pytest.mark.usefixtures("others")
def test_strategies_of_other_packages_stand_beside_those_of_ultra_and_take_no_name_of_theirs() -> None:
    assert strategy_names() == (*OWN, "absent", "broken", "longest", "made", "nothing", "number")
    assert make_strategy("vote") == Vote()
    with pytest.raises(BadCall, match=r"unknown strategy 'longes'; there are: .*, longest, made"):
        make_strategy("longes")


@pytest.mark.usefixtures("others")
async def test_a_strategy_of_another_package_is_used_by_its_name() -> None:
    orchestrator = MultiLLMOrchestrator(strategy="longest")
    orchestrator.register_model("a", FakeModel("short", name="a"), weight=2.0)
    orchestrator.register_model("b", FakeModel("much longer", name="b"))
    result = await orchestrator.process_responses("Q")
    assert (result.strategy, str(result.final_synthesis)) == ("longest", "much longer")


@pytest.mark.usefixtures("others")
def test_its_options_are_checked_as_those_of_ultra() -> None:
    strategy = make_strategy("longest", {"least": 3})
    assert spec_of(strategy) == StrategySpec("longest", {"least": 3})
    assert make_strategy(spec_of(strategy)) == strategy
    with pytest.raises(BadCall, match="strategy 'longest' has no option 'most'; it has: least"):
        make_strategy("longest", {"most": 3})
    assert spec_of(make_strategy("made")).options == {"least": 5}
    with pytest.raises(
        BadCall, match=r"strategy 'made' cannot be made with these options: TypeError.*'most'"
    ):
        make_strategy("made", {"most": 3})


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "strategy 'broken' of others cannot be loaded: ModuleNotFoundError: .*not_there"),
        ("absent", "strategy 'absent' of others cannot be loaded: AttributeError: .*'Absent'"),
        ("number", "strategy 'number' of others is 7; it must be a class, or a function"),
        ("nothing", f"strategy 'nothing' is None; it must be an object with {METHOD}"),
    ],
)
def test_one_that_cannot_be_used_says_whose_it_is_and_harms_no_other(name: str, message: str) -> None:
    with pytest.raises(BadCall, match=message):
        make_strategy(name)
    assert make_strategy("longest").run is not None


def test_a_name_that_two_packages_have_is_refused_with_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for package, module in (("first-package", "first_longest"), ("second-package", "second_longest")):
        install(
            monkeypatch,
            tmp_path / package,
            name=package,
            group="ultra.strategies",
            entry_points={"longest": f"{module}:Longest"},
            modules={module: PACKAGE},
        )
    with pytest.raises(BadCall, match=r"several packages .* 'longest': .*first_longest:Longest of") as told:
        make_strategy("longest")
    assert "second_longest:Longest of second-package" in str(told.value)


WRONG: tuple[Any, ...] = (
    *(-1, 1.5, float("nan"), float("inf"), "", b"x", ("a", "a"), ["a", 1], {"a": -1}, {1: 2}, object()),
)


@pytest.mark.parametrize("name", OWN)
def test_an_option_of_the_wrong_type_is_refused_by_name_whoever_makes_the_strategy(name: str) -> None:
    kind: Any = type(make_strategy(name, {"chooser": "a"} if name == "route" else {}))
    base = {"chooser": "a"} if name == "route" else {}
    for option in strategy_options(name):
        if option == "stages":  # which there are depends on the orchestrator, so that checks them
            continue
        for wrong in WRONG:
            with pytest.raises(BadCall, match=option.split("_", maxsplit=1)[0].removesuffix("s")):
                kind(**{**base, option: wrong})
            with pytest.raises(BadCall):
                make_strategy(name, {**base, option: wrong})
