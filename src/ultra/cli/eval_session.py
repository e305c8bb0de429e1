"""One run of `ultra eval`: from its options to the report."""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ultra._support.checks import check_number
from ultra._support.randomness import new_secret
from ultra.cli.json_output import write_document
from ultra.cli.logs import configure_logs
from ultra.cli.output import tell, write
from ultra.cli.printable_text import one_line
from ultra.cli.sources import load_sources
from ultra.clients import connect
from ultra.clients.pricing import Price
from ultra.errors import BadCall, MissingExtra
from ultra.evals.arms import Arm, strategy_arm
from ultra.evals.dataset import load_dataset
from ultra.evals.evaluation import Evaluation, check_gold
from ultra.evals.fitted_toml import fitted_toml
from ultra.evals.panel import Panel, PanelHeader, PanelModel
from ultra.evals.recording import Recorder
from ultra.evals.report_text import as_markdown, as_text
from ultra.evals.simulated import SimulatedRecorder, scenario
from ultra.orchestrator.orchestrator import MultiLLMOrchestrator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ultra.cli.arguments import RequestedModel
    from ultra.cli.sources import Source
    from ultra.config.configuration import Configuration
    from ultra.config.ensembles import EnsembleConfig
    from ultra.config.sections import RunConfig
    from ultra.evals.findings import Findings
    from ultra.evals.recording import Progress
    from ultra.evals.replay import Unrecorded

__all__ = ["Wanted", "run"]

_SECRET_BYTES: Final = 32
_TELL_EVERY: Final = 50
_SETTINGS: Final = ("quorum", "grace", "timeout", "judge", "max_cost")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The options of `ultra eval`."""

    data: Path | None
    replayed: Path | None
    simulated: str | None
    panel: Path | None
    models: tuple[RequestedModel, ...]
    sources: tuple[Source, ...]
    chosen: tuple[str, ...] | None
    strategies: tuple[str, ...]
    grader: str | None
    allow_code: bool
    limit: int | None
    samples: int
    max_cost: float | None
    concurrency: int
    judge: str | None
    unrecorded: Unrecorded
    retry_failed: bool
    fit: Path | None
    html: Path | None
    markdown: Path | None
    as_json: bool


@dataclass(frozen=True)
class _Live:
    """The models that can be asked: how they are made, and what is known of them."""

    make: Callable[[], MultiLLMOrchestrator]
    models: tuple[PanelModel, ...]
    system: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    ensembles: tuple[Arm, ...] = ()


def run(wanted: Wanted, *, verbose: int = 0) -> int:
    """Measure and report; return the exit code.

    Raises:
        UltraError: what was given is not allowed, or a file cannot be read or written.
    """
    configure_logs(verbose)
    check_number("--max-cost", wanted.max_cost, positive=True, optional=True, unit="dollars")
    arms = [_arm(text) for text in wanted.strategies] or None
    if wanted.html is not None:
        _check_plots()
    signals = _Signals()
    try:
        with signals:
            findings, evaluation = _measured(wanted, arms, signals)
    except KeyboardInterrupt:
        if not signals.caught:
            raise
        return 128 + signals.caught[0]
    if wanted.fit is not None:
        _save(wanted.fit, _fitted(findings, evaluation, wanted))
    if wanted.markdown is not None:
        _save(wanted.markdown, f"# Evaluation\n\n{as_markdown(findings)}")
    if wanted.html is not None:
        from ultra.evals.report_html import as_html  # noqa: PLC0415 - with matplotlib, which takes long

        _save(wanted.html, as_html(findings))
    if wanted.as_json:
        write_document(findings)
    else:
        write(*as_text(findings))
    return 0


class _Signals:
    """Notes Ctrl-C and SIGTERM inside its block, and stops the recorder, so that no actor breaks off.

    The second one ends what does not look, such as a grader of the user's own that hangs.
    """

    def __init__(self) -> None:
        self.caught: list[int] = []
        self.recorder: Recorder | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        numbers = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a job in the background of a shell
            numbers.remove(signal.SIGINT)
        self._before = {number: signal.signal(number, self._note) for number in numbers}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        """Return whether a signal came."""
        return bool(self.caught)

    def _note(self, number: int, _: object) -> None:
        self.caught.append(number)
        if len(self.caught) > 1:
            raise KeyboardInterrupt
        if self.recorder is not None:
            self.recorder.stop()


def _measured(wanted: Wanted, arms: list[Arm] | None, signals: _Signals) -> tuple[Findings, Evaluation]:
    settings: dict[str, Any] = {} if wanted.judge is None else {"judge": wanted.judge}
    if wanted.data is not None:
        return _recorded(wanted, arms, settings, signals)
    recorder: Any = None
    if wanted.simulated is not None:
        models = scenario(wanted.simulated)
        panel = models.panel(wanted.simulated)
        recorder = SimulatedRecorder(models, panel)
    else:
        panel = Panel.open(wanted.replayed or Path())
    if wanted.chosen is not None:
        panel.only(wanted.chosen)
    panel.dataset = panel.dataset.first(wanted.limit)
    _check_judge(wanted.judge, panel)
    evaluation = Evaluation(
        panel,
        arms,
        grader=wanted.grader,
        allow_code=wanted.allow_code,
        recorder=recorder,
        settings=settings,
        unrecorded=wanted.unrecorded,
        most_samples=wanted.samples,
        interrupted=signals,
    )
    return evaluation.run(), evaluation


def _recorded(
    wanted: Wanted, arms: list[Arm] | None, settings: dict[str, Any], signals: _Signals
) -> tuple[Findings, Evaluation]:
    """Measure questions that models are asked, as far as they were not asked before."""
    path = wanted.data or Path()
    dataset = load_dataset(path)
    grader = wanted.grader or "exact"
    check_gold(dataset, grader, allow_code=wanted.allow_code, named=wanted.grader)
    live = _live(wanted)
    file = wanted.panel or path.with_name(f"{path.name.removesuffix('.jsonl')}.panel.jsonl")
    header = PanelHeader(
        source=path.name,
        digest=dataset.digest,
        models=live.models,
        grader=grader,
        secret=new_secret(_SECRET_BYTES).hex(),
        system=live.system,
    )
    exists = file.exists()
    with Panel.open(file, append=True) if exists else Panel.create(file, header, dataset) as panel:
        if exists:
            panel.check_questions(dataset)
            panel.with_models(live.models, live.system)
            if wanted.retry_failed:
                panel.drop_failures()
            tell(f"{file}: {len(panel)} answers are recorded already")
        panel.dataset = panel.dataset.first(wanted.limit)
        _check_judge(wanted.judge, panel)
        unpriced = [model.name for model in live.models if model.price is None]
        if unpriced and wanted.max_cost is not None:
            tell(
                f"--max-cost does not see what {', '.join(unpriced)} cost: no price is known; give it in "
                "ultra.toml, as price = { input = …, output = … }"
            )
        with _progress(shown=not wanted.as_json) as on_progress:
            recorder = Recorder(
                panel,
                live.make,
                max_cost=wanted.max_cost,
                concurrency=wanted.concurrency,
                on_progress=on_progress,
            )
            signals.recorder = recorder
            evaluation = Evaluation(
                panel,
                arms,
                more=() if arms is not None else live.ensembles,
                grader=grader,
                allow_code=wanted.allow_code,
                recorder=recorder,
                settings=live.settings | settings,
                most_samples=wanted.samples,
                interrupted=signals,
            )
            findings = evaluation.run()
        panel.dataset = dataset
        panel.compact()
    dollars = f" for {recorder.cost:.4f} dollars" if recorder.cost or not unpriced else ""
    more = f" and what {', '.join(unpriced)} cost, whose price is not known" if dollars and unpriced else ""
    tell(f"{file}: {recorder.asked} new answers{dollars}{more}; the panel has {len(panel)}")
    return findings, evaluation


def _live(wanted: Wanted) -> _Live:
    """Return the models that are asked: of a configuration, as named, or those that can be used here."""
    if wanted.sources:
        configuration, default = load_sources(wanted.sources)
        return _configured(configuration, wanted.chosen or default)
    requested = wanted.models
    if not requested:
        from ultra.cli.arguments import parse_models  # noqa: PLC0415 - only here
        from ultra.cli.default_models import choose_models  # noqa: PLC0415 - only here

        requested = parse_models(choose_models())
    times = Counter(model.short_name for model in requested)
    named = {
        model.short_name if times[model.short_name] == 1 else model.identifier: model for model in requested
    }
    chosen = _chosen(named, wanted.chosen)

    def make() -> MultiLLMOrchestrator:
        orchestrator = MultiLLMOrchestrator()
        for name, model in named.items():
            orchestrator.register_model(name, connect(model.identifier), model.weight)
        return orchestrator

    first = make()
    infos = {name: first.get_model_info(name) for name in chosen}
    return _Live(
        make,
        tuple(
            PanelModel(
                name=name,
                identity=named[name].identifier,
                weight=named[name].weight,
                price=infos[name].price,
                context_window=infos[name].context_window,
            )
            for name in chosen
        ),
    )


def _configured(configuration: Configuration, chosen: Sequence[str] | None) -> _Live:
    make = partial(MultiLLMOrchestrator.from_config, configuration)
    first = make()
    models = []
    for name in _chosen(configuration.models, chosen):
        given, info = configuration.models[name], first.get_model_info(name)
        models.append(
            PanelModel(
                name=name,
                identity=", ".join(each.what for each in given.deployments),
                weight=given.weight,
                price=given.price if isinstance(given.price, Price) else info.price,
                context_window=info.context_window,
            )
        )
    ensembles = [
        _ensemble(name, ensemble, configuration.run) for name, ensemble in configuration.ensembles.items()
    ]
    run_of = configuration.run
    settings = {name: getattr(run_of, name) for name in _SETTINGS if getattr(run_of, name) is not None}
    return _Live(make, tuple(models), run_of.system, settings, tuple(ensembles))


def _ensemble(name: str, ensemble: EnsembleConfig, run_of: RunConfig) -> Arm:
    """Return the arm of an ensemble; what it leaves out is as in the section run."""
    options = dict(ensemble.options)
    strategy = ensemble.strategy
    if strategy is None:
        strategy = run_of.strategy_name or "synthesize"
        options = dict(run_of.strategy) if isinstance(run_of.strategy, dict) else {}
        options.pop("name", None)
    stages = ensemble.stages or (run_of.stages if ensemble.strategy is None else None)
    settings = ensemble.settings()
    if stages is not None:
        settings["stages"] = stages
    if ensemble.system is not None:
        settings["system"] = ensemble.system
    return Arm(
        name=f"ensemble {name}", strategy=strategy, options=options, models=ensemble.models, run=settings
    )


def _chosen(named: Any, chosen: Sequence[str] | None) -> list[str]:  # noqa: ANN401 - any mapping by name
    unknown = [name for name in chosen or () if name not in named]
    if unknown:
        raise BadCall(f"--models: there is no model {unknown[0]!r}; there are: {', '.join(named)}")
    return list(named) if chosen is None else list(chosen)


def _check_judge(judge: str | None, panel: Panel) -> None:
    if judge is not None and judge not in panel.models:
        raise BadCall(f"--judge {judge!r}: there is no such model; there are: {', '.join(panel.models)}")


def _arm(text: str) -> Arm:
    """Return the arm of ``NAME`` or ``NAME={"option": value}``. Raises `BadCall`."""
    name, equals, options = text.partition("=")
    given: object = {}
    if equals:
        try:
            given = json.loads(options)
        except ValueError as error:
            raise BadCall(f"--strategy {text!r}: the options are no JSON: {error}") from None
    if not isinstance(given, dict):
        raise BadCall(f'--strategy {text!r}: the options must be an object of JSON, such as {{"top": 2}}')
    return strategy_arm(name.strip(), given)


def _check_plots() -> None:
    try:
        import matplotlib  # noqa: F401, ICN001, PLC0415 - whether it is there
    except ImportError as error:
        raise MissingExtra("a report with plots", "eval") from error


def _fitted(findings: Findings, evaluation: Evaluation, wanted: Wanted) -> str:
    """Return what was fitted as lines of a configuration. Raises `BadCall` where nothing was."""
    if not evaluation.fitted:
        why = "; ".join(f"{name}: {reason}" for name, reason in findings.left_out.items())
        raise BadCall(
            f"--fit {wanted.fit}: nothing can be fitted; a strategy vote or cascade must be measured on two "
            f"questions or more{' (' + why + ')' if why else ''}"
        )
    return fitted_toml(
        evaluation.fitted,
        findings,
        evaluation.panel.models,
        source=one_line(findings.source),
        judge=evaluation.judge,
        is_configured=bool(wanted.sources),
    )


def _save(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise BadCall(f"{path} cannot be written: {error}") from None
    tell(f"wrote {path}")


@contextmanager
def _progress(*, shown: bool) -> Iterator[Callable[[Progress], None]]:
    """Tell on stderr how far it is, with time and dollars that are left."""
    if not shown:
        yield lambda _: None
        return
    if not sys.stderr.isatty():
        yield _tell_now_and_then
        return

    from rich.console import Console  # noqa: PLC0415 - only for people
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415 - as above

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(progress: Any) -> None:  # noqa: ANN401 - rich's name hides that of the other
            bar.update(task, completed=progress.done, total=progress.total, description=_left(progress))

        yield show


def _tell_now_and_then(progress: Progress) -> None:
    if progress.done % _TELL_EVERY == 0 or progress.done == progress.total:
        tell(f"{progress.done} of {progress.total} answers{_left(progress)}")


def _left(progress: Progress) -> str:
    """Return dollars so far, where a price is known, and the time and the dollars that are left."""
    seconds, cost = progress.seconds_left, progress.cost_left
    so_far = f", ${progress.cost:.4f}" if progress.cost else ""
    time = f", about {seconds:.0f} s" if seconds else ""
    money = f" and ${cost:.2f}" if cost and time else ""
    return f"{so_far}{' so far' if so_far and time else ''}{time}{money}{' left' if time else ''}"
