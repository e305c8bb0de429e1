"""Registering models and ensembles, and looking at them: the part of an orchestrator beside asking."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ultra._support.checks import check_flag, check_seconds
from ultra.orchestrator.ensembles import Ensemble, Ensembles
from ultra.orchestrator.measurements import Measurements, measure
from ultra.orchestrator.registry import Policies
from ultra.orchestrator.tree import ModelTree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.actors.model.breaker import BreakerPolicy
    from ultra.actors.model.hedging import Hedge
    from ultra.actors.model.limits import Limits
    from ultra.actors.model.retry import RetryPolicy
    from ultra.actors.model.timeouts import Timeouts
    from ultra.clients.catalog import ModelInfo
    from ultra.clients.genai_prices import PriceList
    from ultra.clients.pricing import Price
    from ultra.messages.observers import ObserverGroup
    from ultra.messages.options import RunArguments
    from ultra.messages.request import SamplingOptions
    from ultra.messages.results import ModelMetrics
    from ultra.orchestrator.health import ModelHealth
    from ultra.orchestrator.lifespan import Lifespan
    from ultra.orchestrator.orchestrator import MultiLLMOrchestrator
    from ultra.orchestrator.planning import Planner
    from ultra.orchestrator.registry import ModelRegistry
    from ultra.orchestrator.run_end import RunWatch
    from ultra.supervisor.snapshot import SupervisorSnapshot

__all__ = ["Registration"]


class Registration:
    """The methods of `MultiLLMOrchestrator` that are about its models and ensembles."""

    _lifespan: Lifespan
    _planner: Planner
    _registry: ModelRegistry
    _ensembles: Ensembles
    _watch: RunWatch

    def register_model(
        self,
        name: str,
        client: object,
        weight: float = 1.0,
        *,
        retry: RetryPolicy | None = None,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        breaker: BreakerPolicy | None = None,
        hedge: Hedge | None = None,
        price: Price | PriceList | None = None,
    ) -> None:
        """Add a model. If the orchestrator is entered, its actor starts at once.

        Runs that are under way do not ask it. Registering it once more, with the same client and policies,
        sets its weight.

        Args:
            name: its name in results, events and metrics.
            client: an object with ``generate(prompt)``, async or not, or such a function; or a list of
                clients, the deployments of one model, which are tried in order.
            weight: its priority, a finite number, 0 or more; the highest is asked first.
            retry: its own policy of retries, in place of that of the orchestrator.
            timeouts: its own timeouts.
            limits: its own limits of calls.
            breaker: its own policy of the circuit breaker.
            hedge: when a slow call is hedged by a second one.
            price: dollars for its tokens, by default what the catalog knows, where the client is one of
                Ultra's at the provider's own address; ``"genai-prices"``: as that package has them (extra
                ``prices``). Answers and results then have a cost.

        Raises:
            BadCall: the name is empty, or taken by another client or with other policies; the weight is not
                allowed, the client cannot be used, or genai-prices has no price for it.
            MissingExtra: genai-prices is not installed.
            OrchestratorClosed: the orchestrator was closed.
        """
        self._lifespan.check_open()
        model = self._registry.register(
            name, client, weight, Policies(retry, timeouts, limits, breaker, hedge, price)
        )
        if self._lifespan.tree is not None:
            self._lifespan.call_with_tree(lambda tree: tree.target(model))

    async def unregister_model(self, name: str, *, drain: bool = True, grace: float | None = None) -> None:
        """Remove a model and wait until its actor has ended; its cached answers are removed from memory.

        With `drain`, the requests that it has accepted are answered first; without, they fail. Those that
        have not ended after `grace` seconds (5 by default) are cancelled, and fail. Cancelling this ends
        the waiting only: the model is removed all the same.

        Raises:
            BadCall: there is no model of that name, or another argument is not allowed.
        """
        check_flag("drain", drain)
        check_seconds("grace", grace, endless=True, optional=True)
        model = self._registry.unregister(name)
        tree = self._lifespan.tree
        if tree is not None:
            await self._lifespan.trio_run.run(lambda: tree.remove(model, drain=drain, grace=grace))

    def set_model_weight(self, name: str, weight: float) -> None:
        """Change the weight of a model, from the next run on; raise `BadCall` for a wrong name or weight."""
        self._registry.set_weight(name, weight)

    def get_prioritized_models(self, models: Sequence[str] | None = None) -> list[str]:
        """Return the names of all models, or of these, highest weight first; ties in order of registration.

        Raises:
            BadCall: a name is unknown or repeated, or the list is empty.
        """
        return [model.name for model in self._registry.prioritized(models)]

    def get_model_info(self, name: str) -> ModelInfo:
        """Return what is known of a model, such as what it reads; what is not known is None.

        Raises:
            BadCall: there is no model of that name.
        """
        return self._registry.get(name).info

    def longest_answer(self, name: str, options: SamplingOptions, assumed: int) -> int:
        """Return how many tokens an answer of a model may have that is asked for with these options.

        Of Ultra's own clients, it is the `max_tokens` that they send; where nothing is known, `assumed`.

        Raises:
            BadCall: there is no model of that name.
        """
        return self._registry.get(name).client.longest_answer(options, assumed)

    def add_ensemble(self, name: str, *, description: str = "", **run: Any) -> Ensemble:  # noqa: ANN401 - those of `process_responses`
        """Give a name to models and settings; `run` are arguments of `process_responses` but the prompt.

        For example::

            council = orchestrator.add_ensemble("council", models=["gpt", "claude"], quorum=2)
            result = await council.process_responses("Your prompt")

        Raises:
            BadCall: the name is taken or empty, or an argument is not allowed.
        """
        ensemble = Ensemble(cast("MultiLLMOrchestrator", self), name, run, description)
        given = dict(run)
        stages, models, strategy = (given.pop(key, None) for key in ("stages", "models", "strategy"))
        arguments = cast("RunArguments", given)
        # The form of the answer may be given with each question.
        check = partial(self._planner.planned, "?", stages, models, strategy, arguments, is_whole=False)
        self._ensembles.add(ensemble, check)
        return ensemble

    def ensemble(self, name: str) -> Ensemble:
        """Return the ensemble of this name; raise `BadCall` if there is none."""
        return self._ensembles.get(name)

    def get_ensembles(self) -> dict[str, Ensemble]:
        """Return all ensembles, by name."""
        return dict(self._ensembles.by_name)

    def get_metrics(self) -> dict[str, ModelMetrics]:
        """Return the metrics of each model since it was registered, highest weight first."""
        models = self._registry.prioritized()
        return self._lifespan.trio_run.run_sync(
            lambda: {model.name: model.metrics.snapshot() for model in models}
        )

    def get_measurements(self) -> Measurements:
        """Return all numbers of models, runs and actors, for those who export them; from any thread."""
        return measure(self._registry, self._watch.metrics, self._lifespan)

    @property
    def observers(self) -> ObserverGroup:
        """Those of `telemetry`, fenced."""
        return self._watch.observers

    def health(self) -> dict[str, ModelHealth]:
        """Return the health of each model (up, degraded or down, and why), highest weight first.

        Raises:
            OrchestratorClosed: the orchestrator is not entered.
        """
        return self._lifespan.call_with_tree(
            lambda tree: {model.name: tree.health(model) for model in self._registry.prioritized()}
        )

    def revive_model(self, name: str) -> None:
        """Close the circuit of a model, and start its actor again if that is down after too many crashes.

        Raises:
            BadCall: there is no model of that name.
        """
        model = self._registry.get(name)
        self._lifespan.trio_run.run_sync(model.breaker.reset)
        if self._lifespan.tree is not None:
            self._lifespan.call_with_tree(lambda tree: tree.revive(model))

    def tree(self) -> SupervisorSnapshot:
        """Return the actors at this moment; ``print(orchestrator.tree())`` draws them.

        Raises:
            OrchestratorClosed: the orchestrator is not entered.
        """
        return self._lifespan.call_with_tree(ModelTree.snapshot)
