"""Makes the tree of a scenario, and starts all who work on it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ultra.simulation.actors import SimulatedActor, SlowStarter
from ultra.simulation.cast import ActorNode, SupervisorNode
from ultra.simulation.scenario import ActorSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio

    from ultra.simulation.scenario import SupervisorSpec
    from ultra.simulation.simulation import Simulation
    from ultra.supervisor.supervisor import Supervisor

__all__ = ["build"]


def build(simulation: Simulation, nursery: trio.Nursery) -> None:
    """Make the tree of the scenario, and start all who work on it."""
    scenario, lives, work = simulation.scenario, simulation.lives, simulation.work
    root = _node_of(scenario.root, None)
    lives.nodes["/"] = root
    work.supervisors[root.path] = simulation.system.root
    _add_children(simulation, root, scenario.root, nursery)
    for number in range(scenario.senders):
        nursery.start_soon(work.send_for_long, number, name=f"sender {number}")
    nursery.start_soon(work.operate, name="operator")


def _node_of(spec: SupervisorSpec, parent: SupervisorNode | None) -> SupervisorNode:
    return SupervisorNode(
        spec.name,
        parent,
        strategy=spec.strategy,
        intensity=spec.intensity,
        on_excess=spec.on_excess,
        restart=spec.restart,
        backoff=spec.backoff,
    )


def _add_children(
    simulation: Simulation, node: SupervisorNode, spec: SupervisorSpec, nursery: trio.Nursery
) -> None:
    supervisor = simulation.work.supervisors[node.path]
    for child in spec.children:
        if isinstance(child, ActorSpec):
            _spawn(simulation, supervisor, node, child, nursery)
        else:
            below = _node_of(child, node)
            simulation.lives.add(below)
            simulation.work.supervisors[below.path] = supervisor.supervisor(
                child.name,
                strategy=child.strategy,
                intensity=child.intensity,
                on_excess=child.on_excess,
                restart=child.restart,
                backoff=child.backoff,
            )
            _add_children(simulation, below, child, nursery)


def _spawn(
    simulation: Simulation,
    supervisor: Supervisor,
    above: SupervisorNode,
    spec: ActorSpec,
    nursery: trio.Nursery,
) -> None:
    node = ActorNode(spec.name, above, options=spec.options, restart=spec.restart, backoff=spec.backoff)
    simulation.lives.add(node)
    factory: Callable[[], SimulatedActor] = partial(SimulatedActor, node, simulation.stage)
    if spec.slow:
        factory = partial(
            SlowStarter,
            node,
            simulation.stage,
            simulation.scenario.moods(spec.start, spec.failing),
            simulation.scenario.moods(spec.stop, spec.failing),
        )
    node.ref = supervisor.spawn(
        factory, name=spec.name, restart=spec.restart, options=spec.options, backoff=spec.backoff
    )
    simulation.work.actors.append(node)
    nursery.start_soon(simulation.work.watch, node, name=f"watch {node.path}")
