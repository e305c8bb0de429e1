"""The fault plan: readable rules that say what goes wrong, when, and how often."""

from __future__ import annotations

from typing import Final, Self

from ultra.errors import BadCall
from ultra.faults.actor_faults import ActorFaults
from ultra.faults.call_faults import CallFaults
from ultra.faults.http_faults import HttpFaults

__all__ = ["FAULTS", "FaultPlan"]


class FaultPlan(ActorFaults, CallFaults, HttpFaults):
    """What is to go wrong, for tests: in actors, in calls to models, in HTTP requests and responses.

        plan = (
            FaultPlan(seed=7)
            .crash("/models/*/actor", times=2)
            .delay("/workers/**", (0.1, 2.0), message=Order, probability=0.3)
            .fail_call("llama", status=503, retry_after=2.0, times=1)
            .cut_stream("gemini", pieces=3, stage="initial")
        )
        async with ActorSystem(faults=plan) as system: ...
        async with MultiLLMOrchestrator(faults=plan) as orchestrator: ...
        print(plan)

    Each method adds a rule and returns the plan. All rules that match apply, in the order in which they
    were written, up to one that leaves nothing to later ones, such as a crash. `seed` decides all that is
    left to chance; None takes a random one. Each rule draws for itself, so another rule changes nothing
    for the others. Printing the plan shows the seed, and what the plan did. Times are trio's, so virtual
    clocks drive them; they begin with the plan's first use, which logs a warning.

    A plan is for one event loop. Its counts go on over several systems; make a new plan to start at 0.

    Raises:
        BadCall: by the methods, when a rule is not allowed or could never apply.
    """

    def add(self, fault: str, *target: str, **settings: object) -> Self:
        """Add a rule by the name of its method: ``plan.add("crash", "/echo")``. Files of rules use this.

        Raises:
            BadCall: there is no such fault, or the fault has no such setting.
        """
        if fault not in FAULTS:
            raise BadCall(f"unknown fault {fault!r}; there are: {', '.join(FAULTS)}")
        try:
            added: Self = getattr(self, fault)(*target, **settings)
        except TypeError as error:
            raise BadCall(f"{fault} cannot be added with {settings!r}: {error}") from error
        return added


FAULTS: Final = tuple(
    name
    for cls in (ActorFaults, CallFaults, HttpFaults)
    for name, method in vars(cls).items()
    if getattr(method, "__annotations__", {}).get("return") == "Self"
)
"""The kinds of faults: the names of the methods that add them."""
