"""`ultra config`: write a configuration for the keys that are set here, and check a configuration."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ultra.cli.commands import new_app
from ultra.cli.output import tell, write
from ultra.cli.printable_text import one_line
from ultra.cli.sources import CONFIGURATION, find_sources, own_configuration, read_sources
from ultra.cli.trust import trust

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ultra.clients import ProviderStatus
    from ultra.config.loading import Configuration

__all__ = ["app"]

app = new_app()
app.command()(trust)

_HEAD = """\
# Ultra's configuration: MultiLLMOrchestrator.from_config("{name}")
# Check it with: ultra config check {name}

[run]
quorum = 1            # how many models must answer, or "all"
timeout = 60          # seconds for a whole run
# strategy = "synthesize"    # or "vote", "best_of"; with options: {{ name = "…", … }}
# grace = 10          # seconds for slower models, once the quorum has answered
# samples = 1         # how often each model is asked
# stages = ["initial", "meta", "synthesis"]
# system = "You answer briefly."
# judge = "{first}"      # a model below that grades the answers
# max_cost = 0.10     # dollars; when a run has cost so much, its further stages are left out

[cache]
enabled = true
store = "memory"      # or "sqlite:///answers.db", "redis://localhost"

# [history]           # of the command: ultra log
# enabled = true      # false: nothing that is asked is kept
# retention = {{ seconds = 2592000, bytes = 1073741824 }}

# For every model that has none of its own:
# [retry]
# max_retries = 3
# [timeouts]
# attempt = 120       # seconds; also first_token and idle
# [limits]
# concurrency = 32    # also requests_per_minute, tokens_per_minute
"""

_MODEL = """
[models.{name}]
model = "{example}"    # {detail}; a list of several is tried in order
weight = {weight}
# options = {{ temperature = 0.2, max_tokens = 1000 }}
# price = {{ input = 0.0, output = 0.0 }}    # dollars for a million tokens
"""


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path(CONFIGURATION),
    *,
    user: Annotated[
        bool, typer.Option("--user", help="Write your own, which holds in every directory.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a commented configuration with a model for every provider that can be used here."""
    from ultra.clients import provider_statuses  # noqa: PLC0415 - not for the help alone
    from ultra.errors import ConfigError  # noqa: PLC0415 - as above

    if user:
        path = own_configuration()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and not force:
        raise ConfigError(f"{path} is there already; give another name, or --force to write over it")
    usable = [status for status in provider_statuses() if status.available]
    # The embedded model is small, so its answers would only make those of the others worse.
    usable = [status for status in usable if status.name != "local"] or usable
    if not usable:
        raise ConfigError(
            'no provider can be used here: set a key, or install the embedded model with "ultra-llm[local]"; '
            "'ultra models' says what is missing"
        )
    path.write_text(_configuration(path.name, usable), "utf-8")
    write(one_line(f"{path}: {', '.join(status.example for status in usable)}"))


@app.command("path")
def show_path() -> None:
    """Print the path of your own configuration, whether or not it is there.

    The ultra.toml of the working directory stands on top of it: models and ensembles of both are there, and
    of two with the same name that of the project, whole; other settings of the project go first. Where the
    project has models, these are asked unless others are named.
    """
    write(str(own_configuration()))


def _configuration(name: str, usable: list[ProviderStatus]) -> str:
    models = (
        _MODEL.format(
            name=status.name,
            example=status.example,
            detail=one_line(status.detail),
            weight=float(len(usable) - number),
        )
        for number, status in enumerate(usable)
    )
    return _HEAD.format(name=name, first=usable[0].name) + "".join(models)


@app.command()
def check(
    path: Annotated[
        Path | None, typer.Argument(help="The file to check.  [default: ultra.toml]", show_default=False)
    ] = None,
    *,
    ask: Annotated[bool, typer.Option("--ask", help="Ask each model for one token, too.")] = False,
) -> int:
    """Check a configuration: its keys, values, models and providers; with --ask, that each model answers.

    Without --ask, nothing is opened, made or sent, but classes of your own that the file names are imported,
    and clients that are not placed in a cluster are made. A file that is found here and not named is checked
    if it is trusted (see: ultra config trust --help), or asks for nothing that needs trust.
    """
    from ultra.cli.stored_keys import use_stored_keys  # noqa: PLC0415 - as above
    from ultra.config.file import ConfigurationFile  # noqa: PLC0415 - not for the help alone
    from ultra.config.layers import examine_layers  # noqa: PLC0415 - as above
    from ultra.config.loading import examine_configuration  # noqa: PLC0415 - as above
    from ultra.orchestrator.configured import configured  # noqa: PLC0415 - as above
    from ultra.orchestrator.orchestrator import MultiLLMOrchestrator  # noqa: PLC0415 - as above

    use_stored_keys()
    sources = () if path is not None else find_sources(None)
    if path is None and sources:
        how = f"name it: ultra config check {sources[-1].path}{' --ask' if ask else ''}"
        files = read_sources(sources, how)
        configuration, _, problems = examine_layers(files)
    else:
        files = [ConfigurationFile.read(path or CONFIGURATION)]
        configuration, problems = examine_configuration(files[0])
    clients: dict[str, list[object]] = {}
    problems += _problems(configuration, clients)
    if problems:
        for problem in sorted(problems, key=partial(_line_in, [str(file.path) for file in files])):
            tell(problem)
        return 2
    configured(MultiLLMOrchestrator, configuration.without_store(), clients)
    number = len(configuration.models)
    names = " and ".join(str(file.path) for file in reversed(files))
    write(one_line(f"{names}: {number} model{'' if number == 1 else 's'}, no errors"))
    return _ask_each(configuration, clients) if ask else 0


def _line_in(files: list[str], problem: str) -> tuple[int, int]:
    """Return the number of the file and of the line that a problem names; 0: it names none."""
    for number, file in enumerate(files):
        if problem.startswith(f"{file}:"):
            line = problem.removeprefix(f"{file}:").partition(":")[0]
            return number, int(line) if line.isdecimal() else 0
    return 0, 0


def _problems(configuration: Configuration, clients: dict[str, list[object]]) -> Iterator[str]:
    """Yield a line for each deployment that cannot be connected to, and for other settings that fail.

    Its client is added to `clients`: making one may take long, and so each is made once.
    """
    from ultra.errors import MissingExtra, UltraError  # noqa: PLC0415 - not for the help alone
    from ultra.orchestrator.orchestrator import MultiLLMOrchestrator  # noqa: PLC0415 - as above
    from ultra.orchestrator.planning import stages_of, strategy_of  # noqa: PLC0415 - as above
    from ultra.strategies.stages import order_stages  # noqa: PLC0415 - as above

    def check_strategy() -> None:
        strategy_of(configuration.run.load_strategy(), None, known)

    known = stages_of(MultiLLMOrchestrator)
    checks = {
        ("run", "stages"): lambda: order_stages(configuration.run.stages, known),
        ("run", "strategy"): check_strategy,
    }
    for where, run_check in checks.items():
        try:
            with configuration.explaining(*where):
                run_check()
        except UltraError as error:
            yield str(error)
    for name, model in configuration.models.items():
        made = clients[name] = []
        for deployment in model.deployments:
            try:
                with configuration.explaining("models", name):
                    made.append(deployment.connect(configuration.cluster))
            except MissingExtra as error:
                yield f"{configuration.lines.place('models', name)}: {error}"
            except UltraError as error:
                yield str(error)


def _ask_each(configuration: Configuration, clients: Mapping[str, Sequence[object]]) -> int:
    """Ask every deployment for one token, and return the exit code: 1 if one gives no answer."""
    import trio  # noqa: PLC0415 - not for the help alone

    from ultra.cli.probe import probe  # noqa: PLC0415 - as above

    failed = 0
    for deployment, error in trio.run(probe, configuration, clients):
        failed += error is not None
        write(one_line(f"{deployment}: {'answers' if error is None else error}"))
    return 1 if failed else 0
