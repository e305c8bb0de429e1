"""Faults on purpose: plans of what goes wrong, a transport that injects them, seeded simulations.

    plan = FaultPlan(seed=7).crash("/models/*/actor", times=2).fail_call("llama", status=503)
    async with MultiLLMOrchestrator(faults=plan) as orchestrator:
        ...
    print(plan)

See docs/testing.md. Modules are imported when their names are asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ultra.faults.plan import FAULTS, FaultPlan
    from ultra.faults.rules import InjectedFault, Injection
    from ultra.faults.simulation import Simulation, simulate
    from ultra.faults.transport import FaultyTransport

__all__ = [
    "FAULTS",
    "FaultPlan",
    "FaultyTransport",
    "InjectedFault",
    "Injection",
    "Simulation",
    "simulate",
]

_HOMES: Final = {
    "FAULTS": "ultra.faults.plan",
    "FaultPlan": "ultra.faults.plan",
    "FaultyTransport": "ultra.faults.transport",
    "InjectedFault": "ultra.faults.rules",
    "Injection": "ultra.faults.rules",
    "Simulation": "ultra.faults.simulation",
    "simulate": "ultra.faults.simulation",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
