"""Fault injection: plans of what is to go wrong, a faulty transport for httpx, a simulated provider.

    plan = FaultPlan(seed=7).crash("/models/*/actor", times=2).fail_call("llama", status=503)
    async with MultiLLMOrchestrator(faults=plan) as orchestrator:
        ...
    print(plan)

Where to find what:

    plan, plan_file                            `FaultPlan`, in code and in TOML files
    actor_faults, call_faults, http_faults     the kinds of faults, as methods of the plan
    rules, patterns, rule_set                  when and where a rule applies; counts and observers
    transport                                  `FaultyTransport`, which injects HTTP faults in a client
    provider/                                  the simulated provider, which injects them in a server

See docs/testing.md. Modules are imported when their names are asked for.
"""

from typing import TYPE_CHECKING, Final

from ultra._support.lazy import lazy_names

if TYPE_CHECKING:
    from ultra.faults.plan import FAULTS, FaultPlan
    from ultra.faults.rules import InjectedFault, Injection
    from ultra.faults.transport import FaultyTransport
    from ultra.simulation.user_scenarios import Simulation, simulate

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
    "Simulation": "ultra.simulation.user_scenarios",
    "simulate": "ultra.simulation.user_scenarios",
}


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
