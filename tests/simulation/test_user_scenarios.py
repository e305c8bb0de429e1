"""`simulate`: a scenario of the user's own, repeatable by its seed, in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from ultra import MultiLLMOrchestrator
from ultra.actors import Actor
from ultra.errors import BadCall
from ultra.faults import FaultPlan, InjectedFault, Simulation, simulate
from ultra.supervisor import ActorSystem

if TYPE_CHECKING:
    from ultra.simulation.user_scenarios import Outcome


class Echo(Actor):
    async def receive(self, message: object) -> object:
        return message


async def race(simulation: Simulation) -> list[int]:
    """Ten tasks that are ready at the same time, in the order in which they run."""
    order: list[int] = []

    async def run(number: int) -> None:
        await trio.sleep(1.0)
        order.append(number)
        simulation.note(f"runs {number}")

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(run, number)
    return order


def _simulated(seed: int) -> Outcome[list[int]]:
    return simulate(race, seed)


def test_hours_pass_at_once() -> None:
    async def sleep(simulation: Simulation) -> str:
        await trio.sleep(7200)
        return "rested"

    outcome = simulate(sleep, 3)

    assert (outcome.seed, outcome.value, outcome.seconds) == (3, "rested", 7200)


def test_the_seed_decides_the_order_of_tasks_and_the_trace() -> None:
    assert _simulated(1) == _simulated(1)
    assert _simulated(1).trace[0] == f"     1.000 s  runs {_simulated(1).value[0]}"
    assert len({tuple(_simulated(seed).value) for seed in range(20)}) > 10


def test_the_seed_decides_all_that_an_orchestrator_leaves_to_chance() -> None:
    async def run(simulation: Simulation) -> str:
        async def model(prompt: str, *, system: str | None = None) -> str:
            simulation.note(f"{system}: {prompt}")  # with the marks around the candidates, and their order
            await trio.sleep(1)
            return "yes"

        simulation.plan.fail_call(times=3).crash("/models/*/actor", times=1)
        orchestrator = MultiLLMOrchestrator(faults=simulation.plan)
        for name in ("a", "b"):
            orchestrator.register_model(name, model)
        result = await orchestrator.process_responses("Q")
        return f"{result.run_id} {result.response_time} {FaultPlan().seed}"

    assert simulate(run, 1) == simulate(run, 1)
    assert simulate(run, 1).value != simulate(run, 2).value


def test_the_seed_decides_what_the_scenario_draws_and_what_its_plan_injects() -> None:
    async def chance(simulation: Simulation) -> tuple[float, int]:
        simulation.plan.drop("/echo", probability=0.5)
        async with ActorSystem(faults=simulation.plan) as system:
            echo = system.spawn(Echo, name="echo")
            for _ in range(20):
                echo.tell("hi")
        return simulation.random.random(), simulation.plan.counts["drop"]

    assert simulate(chance, 1).value == simulate(chance, 1).value
    assert len({simulate(chance, seed).value for seed in range(10)}) == 10


def test_what_goes_wrong_in_the_scenario_is_raised() -> None:
    async def fail(simulation: Simulation) -> None:
        await trio.sleep(1)
        raise InjectedFault("as planned")

    with pytest.raises(InjectedFault, match="as planned"):
        simulate(fail, 0)


def test_a_scenario_that_hangs_is_told_with_its_seed() -> None:
    async def hang(simulation: Simulation) -> None:
        await trio.sleep_forever()

    with pytest.raises(TimeoutError, match=r"not ended after 60 virtual seconds \(seed 5\)"):
        simulate(hang, 5, timeout=60)


@pytest.mark.parametrize("seed", [-1, 1.0, "1", True])
def test_a_seed_that_is_no_whole_number_is_a_bad_call(seed: Any) -> None:
    with pytest.raises(BadCall, match="seed="):
        simulate(race, seed)


async def test_a_simulation_inside_trio_is_a_bad_call() -> None:
    with pytest.raises(BadCall, match="from a plain function"):
        simulate(race, 1)
