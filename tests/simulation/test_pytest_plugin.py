"""The plugin for pytest, in small projects of users: with pytest-trio, and without it."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module

import pytest

import ultra
import ultra.faults
from helpers.paths import DOCS

pytest_plugins = ["pytester"]

TRIO = "[pytest]\ntrio_mode = true"

CALLS_A_MODEL = """
    from ultra import MultiLLMOrchestrator

    async def test_the_model_answers(fault_plan, autojump_clock):
        fault_plan.fail_call("llama", status=503, times=2).delay_call(seconds=(1, 9))
        orchestrator = MultiLLMOrchestrator(max_retries=RETRIES, faults=fault_plan)

        async def llama(prompt):
            return "hello"

        orchestrator.register_model("llama", llama)
        assert str(await orchestrator.get_model_response("llama", "hi")) == "hello"
"""

SIMULATES = """
    import trio

    async def scenario(simulation):
        simulation.note(f"drew {simulation.random.random():.3f}")
        simulation.plan.crash("/nobody")
        await trio.sleep(3600)
        assert LUCKY, "out of luck"
        return simulation.seed

    def test_an_hour_passes(simulation):
        outcome = simulation(scenario)
        assert (outcome.value, outcome.seconds) == (simulation.seed, 3600)
"""


@pytest.fixture(scope="module", autouse=True)
def all_is_imported_that_the_projects_use() -> None:
    """Pytester forgets what is first imported in its runs; a second copy of a class is another class."""
    for package in (ultra, ultra.faults):
        for name in package.__all__:
            getattr(package, name)
    for module in ("tenacity", "trio.testing", "ultra.testing"):
        import_module(module)


@pytest.fixture
def pytester(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Without the plugins that these tests have not loaded themselves: pytester would load them each time."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-pno:langsmith_plugin -pno:schemathesis")
    return pytester


@pytest.mark.parametrize("trio_mode", [True, False])
def test_a_simulation_runs_in_plain_tests(pytester: pytest.Pytester, trio_mode: bool) -> None:  # noqa: FBT001
    pytester.makepyfile(SIMULATES.replace("LUCKY", "True"))
    if trio_mode:
        pytester.makeini(TRIO)

    result = pytester.runpytest_inprocess(*([] if trio_mode else ["-p", "no:trio"]))

    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*ultra seed*")


def test_the_report_of_a_failed_simulation_has_seed_notes_and_the_command(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_luck=SIMULATES.replace("LUCKY", "False"))

    result = pytester.runpytest_inprocess()

    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines_random(
        [
            r"-+ ultra seed \d+ -+",
            r"to replay it: pytest test_luck\.py::test_an_hour_passes --ultra-seed \d+",
            r"FaultPlan\(seed=\d+\): 0 faults injected",
            r"  1\. crash /nobody: never matched",
            r" +0\.000 s  drew 0\.\d+",
        ]
    )


def test_the_seed_of_a_report_repeats_what_happened(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SIMULATES.replace("LUCKY", "False"))
    first = pytester.runpytest_inprocess().stdout.str()
    (seed,) = set(re.findall(r"ultra seed (\d+)", first))

    again = pytester.runpytest_inprocess("--ultra-seed", seed).stdout.str()
    other = pytester.runpytest_inprocess().stdout.str()

    assert _drawn(first) == _drawn(again) != _drawn(other)


def _drawn(output: str) -> list[str]:
    return re.findall(r"drew 0\.\d+", output)


def test_an_async_test_gets_a_plan_and_its_report_tells_what_the_plan_did(pytester: pytest.Pytester) -> None:
    pytester.makeini(TRIO)
    pytester.makepyfile(test_calls=CALLS_A_MODEL.replace("RETRIES", "1"))

    result = pytester.runpytest_inprocess()

    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines_random(
        [
            r"to replay it: pytest test_calls\.py::test_the_model_answers --ultra-seed \d+",
            r"FaultPlan\(seed=\d+\): 2 faults injected",
            r"  1\. fail_call llama status=503 times=2: 2 times, of 2 matches",
            r" +\d+\.\d+ s  fail_call  llama",
        ]
    )


def test_a_plan_whose_faults_are_survived_goes_unmentioned(pytester: pytest.Pytester) -> None:
    pytester.makeini(TRIO)
    pytester.makepyfile(CALLS_A_MODEL.replace("RETRIES", "2"))

    result = pytester.runpytest_inprocess()

    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*ultra seed*")


def test_each_test_has_a_seed_of_its_own_and_both_fixtures_share_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("run", range(5))
        def test_seed(run, fault_plan, simulation):
            assert fault_plan.seed == simulation.seed
            print("seed", fault_plan.seed)
        """
    )

    def seeds(*arguments: str) -> set[str]:
        result = pytester.runpytest_inprocess("-s", *arguments)
        result.assert_outcomes(passed=5)
        return set(re.findall(r"seed (\d+)", str(result.stdout)))

    assert len(seeds()) == 5
    assert seeds("--ultra-seed", "7") == {"7"}


def test_the_command_quotes_what_a_shell_would_take_apart(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_quotes="""
        import pytest

        @pytest.mark.parametrize("text", ["a b"])
        def test_it(text, fault_plan):
            assert False
        """
    )

    result = pytester.runpytest_inprocess()

    result.stdout.re_match_lines([r"to replay it: pytest 'test_quotes\.py::test_it\[a b\]' --ultra-seed \d+"])


def test_a_simulation_inside_trio_is_refused_with_a_reason(pytester: pytest.Pytester) -> None:
    pytester.makeini(TRIO)
    pytester.makepyfile(
        """
        async def scenario(simulation):
            pass

        async def test_inside(simulation):
            simulation(scenario)
        """
    )

    result = pytester.runpytest_inprocess()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*BadCall: a simulation runs a trio of its own: call it from a plain function*"]
    )


@pytest.mark.parametrize("seed", ["-1", "1.5", "x", ""])
def test_a_seed_that_is_none_is_a_usage_error(pytester: pytest.Pytester, seed: str) -> None:
    result = pytester.runpytest_inprocess(f"--ultra-seed={seed}")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*--ultra-seed: invalid whole number, 0 or more, value: '{seed}'"])


def test_pytest_starts_without_anything_heavy() -> None:
    code = (
        "import sys, ultra.simulation.pytest_plugin;"
        "heavy = {'trio', 'msgspec', 'httpx', 'anyio', 'structlog', 'tenacity', 'asyncio'};"
        "print(sorted(heavy.intersection(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    alone = subprocess.run(
        [sys.executable, "-c", code.replace("ultra.simulation.pytest_plugin", "pytest")],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == alone.stdout


def test_the_command_holds_for_the_directory_that_pytest_was_called_in(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]")
    directory = pytester.mkdir("inside")
    (directory / "test_deep.py").write_text("class TestIt:\n    def test_it(self, fault_plan): assert False")
    monkeypatch.chdir(directory)

    result = pytester.runpytest_inprocess()

    result.stdout.re_match_lines([r"to replay it: pytest test_deep\.py::TestIt::test_it --ultra-seed \d+"])


def test_the_examples_in_the_docs_run(pytester: pytest.Pytester) -> None:
    text = (DOCS / "testing.md").read_text("utf-8")
    examples = [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "def test_" in code]
    pytester.makeini(TRIO)
    pytester.makepyfile(**{f"test_example_{number}": code for number, code in enumerate(examples)})

    pytester.runpytest_inprocess().assert_outcomes(passed=3 + 21)
