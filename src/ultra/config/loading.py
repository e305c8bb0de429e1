"""Read and check `ultra.toml`: models, settings of runs, cache and policies.

[run]
timeout = 60

[models.gpt]
model = "openai:gpt-4o-mini"
weight = 2.0
price = { input = 0.15, output = 0.60 }

[models.claude]
model = [
    { model = "anthropic:claude-sonnet-4-5", api_key = "${MY_ANTHROPIC_KEY}" },
    "openrouter:anthropic/claude-sonnet-4.5",
]
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args

import msgspec
from msgspec import Struct, structs

from ultra.actors.model.breaker import BreakerPolicy
from ultra.actors.model.limits import Limits
from ultra.actors.model.retry import RetryPolicy
from ultra.actors.model.timeouts import Timeouts
from ultra.clients.catalog import Facts, OutputMode, model_info
from ultra.clients.pricing import Price, PriceTier
from ultra.clients.providers import find_provider
from ultra.clients.quirks import Quirks
from ultra.config.configuration import Configuration, without_values
from ultra.config.ensembles import EnsembleConfig, ensemble_problems
from ultra.config.file import ConfigurationFile
from ultra.config.history import HistoryConfig
from ultra.config.journal import JournalConfig
from ultra.config.keys import KeyConfig
from ultra.config.placement import ClusterConfig, PlacementConfig, RayConfig
from ultra.config.sections import CacheConfig, DeploymentConfig, ModelConfig, RunConfig
from ultra.config.serving import ServeConfig, serve_problems
from ultra.config.shared import SharedConfig
from ultra.config.telemetry import TelemetryConfig
from ultra.config.toml_lines import TomlLines
from ultra.errors import BadCall, ConfigError, UltraError
from ultra.stores.journal_contract import Retention

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Configuration", "examine_configuration", "load_configuration", "read_table"]

T = TypeVar("T")

_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_NESTED: Final[Mapping[str, type]] = {
    "limits": Limits,
    "placement": PlacementConfig,
    "price": Price,
    "quirks": Quirks,
    "ray": RayConfig,
    "retention": Retention,
    "retry": RetryPolicy,
    "timeouts": Timeouts,
    "breaker": BreakerPolicy,
}
_WORDS: Final = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "object": "a section",
    "str": "text",
}
"""The kinds of values: msgspec's word, and the word for users."""

_SECRET: Final = {"api_key", "base_url", "options", "hash", "budgets", "runtime_env"}
_CHOICES: Final = {
    "price": "a section with input and output, or 'genai-prices'",
    "hedge_after": "a number of seconds, or 'p95'",
    "keepalive": "chunk, comment or off",
    "quorum": "a whole number, or 'all'",
    "scheduling_strategy": "DEFAULT or SPREAD",
    "synchronous": "normal or full",
    "strategy": "the name of a strategy, or a section with its name and its options",
}

_TOP: Final = (
    *("run", "cache", "retry", "timeouts", "limits", "breaker", "catalog", "models", "ensembles", "serve"),
    *("telemetry", "journal", "history", "shared", "cluster"),
)


def load_configuration(source: str | Path | ConfigurationFile | Configuration) -> Configuration:
    """Check the file at this path, or one that was read; ``${VAR}`` stands for an environment variable.

    What is a configuration already is returned as it is.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or something in it is not allowed. The message
            has a line for each error: file, line and key, what was found, and what is allowed.
    """
    if isinstance(source, Configuration):
        return source
    configuration, problems = examine_configuration(source)
    if problems:
        raise ConfigError("\n".join(problems))
    return configuration


def examine_configuration(source: str | Path | ConfigurationFile) -> tuple[Configuration, list[str]]:
    """Return what can be read of a file, and a line for each error in it.

    What is not allowed is left out of the configuration, as are models that lack something.

    Raises:
        ConfigError: the file cannot be read, or is not TOML.
    """
    file = source if isinstance(source, ConfigurationFile) else ConfigurationFile.read(source)
    return read_table(file.table(), TomlLines(str(file.path), file.text()))


def read_table(table: Mapping[str, Any], lines: TomlLines) -> tuple[Configuration, list[str]]:
    """Return what can be read of a decoded file, and a line for each error; `lines` names the places."""
    try:
        reader = _Reader(lines)
        return reader.read(table), list(reader.problems)
    except RecursionError:
        raise ConfigError(f"{lines.source}: it is nested too deeply to be a configuration") from None


class _Reader:
    """Makes a `Configuration` of a decoded file, section by section, so that errors can name the place."""

    def __init__(self, lines: TomlLines) -> None:
        self.problems: dict[str, None] = {}  # each once, in the order in which they were found
        self._lines = lines
        self._unset = 0
        self._variables: dict[str, None] = {}  # in the order of their use

    def read(self, table: Mapping[str, Any]) -> Configuration:
        for name in table:
            if name not in _TOP:
                self._add((name,), f"unknown section; allowed are: {', '.join(_TOP)}")
        models = self._section(table, "models")
        if not table.get("models"):
            hint = 'add a section such as [models.gpt] with model = "…"'
            self.problems[f"{self._lines.source}: no models; {hint}"] = None
        entries = self._section(table, "catalog")
        catalog = {
            name: facts for name, value in entries.items() if (facts := self._entry(name, value)) is not None
        }
        run = self._optional(table, "run", RunConfig) or RunConfig()
        known = {
            name: _with_catalog(model, catalog)
            for name, value in models.items()
            if (model := self._convert(("models", name), value, ModelConfig)) is not None
        }
        self._check_run(run, models, known)
        ensembles = {
            name: ensemble
            for name, value in self._section(table, "ensembles").items()
            if (ensemble := self._convert(("ensembles", name), value, EnsembleConfig)) is not None
        }
        for where, problem in ensemble_problems(ensembles, models):
            self._add(where, problem)
        serve = self._optional(table, "serve", ServeConfig) or ServeConfig()
        for where, problem in serve_problems(serve, models, ensembles):
            self._add(where, problem)
        named = self._section(table, "ensembles")
        if run.ensemble is not None and run.ensemble not in named:
            choices = ", ".join(named) or "none; add one as [ensembles.NAME]"
            self._add(("run", "ensemble"), f"found {run.ensemble!r}; allowed are: {choices}")
        return Configuration(
            lines=self._lines,
            models=known,
            catalog=catalog,
            ensembles=ensembles,
            serve=serve,
            telemetry=self._optional(table, "telemetry", TelemetryConfig) or TelemetryConfig(),
            run=run,
            cache=self._optional(table, "cache", CacheConfig) or CacheConfig(),
            journal=self._optional(table, "journal", JournalConfig) or JournalConfig(),
            history=self._optional(table, "history", HistoryConfig) or HistoryConfig(),
            shared=self._optional(table, "shared", SharedConfig) or SharedConfig(),
            cluster=self._optional(table, "cluster", ClusterConfig) or ClusterConfig(),
            retry=self._optional(table, "retry", RetryPolicy),
            timeouts=self._optional(table, "timeouts", Timeouts),
            limits=self._optional(table, "limits", Limits),
            breaker=self._optional(table, "breaker", BreakerPolicy),
            variables=tuple(self._variables),
        )

    def _entry(self, name: str, value: object) -> Facts | None:
        """Return what the file tells of the model of this name; None: that is not allowed."""
        where = ("catalog", name)
        provider, colon, model = name.partition(":")
        if not (colon and model):
            self._add(where, 'allowed is the name of a model as in [catalog."openai:my-model"]')
            return None
        try:
            find_provider(provider)
        except BadCall as error:
            self._add(where, str(error))
            return None
        if not isinstance(value, dict):
            self._add(where, f"{_shown(where, value)}allowed is a section")
            return None
        return self._convert(where, value, Facts)

    def _check_run(self, run: RunConfig, models: Mapping[str, Any], known: Mapping[str, ModelConfig]) -> None:
        """Check the settings of a run against the `models` of the file, and those `known` to be right."""
        if run.judge is not None and run.judge not in models:
            self._add(("run", "judge"), f"found {run.judge!r}; allowed are: {', '.join(models)}")
        if isinstance(run.quorum, int) and models and not 1 <= run.quorum <= len(models):
            allowed = f"'all', or a number between 1 and {len(models)}"
            self._add(("run", "quorum"), f"found {run.quorum!r}; allowed is {allowed}")
        if (
            run.max_cost is not None
            and len(known) == len(models)
            and not any(map(_has_price, known.values()))
        ):
            self._add(("run", "max_cost"), "no model has a price, so no run would cost anything")
        if isinstance(run.strategy, dict):
            self._check_name(run.strategy)
        for name in ("timeout", "max_cost", "samples", "grace"):
            value, may_be_zero = getattr(run, name), name == "grace"
            if value is not None and not (value > 0 or (may_be_zero and value == 0)):
                allowed = "a number, 0 or more" if may_be_zero else "a number above 0"
                self._add(("run", name), f"found {value!r}; allowed is {allowed}")

    def _check_name(self, strategy: Mapping[str, Any]) -> None:
        if "name" not in strategy:
            self._add(("run", "strategy"), 'it has no name; add one, such as name = "vote"')
        elif not isinstance(strategy["name"], str):
            where = ("run", "strategy", "name")
            self._add(where, f"found {strategy['name']!r}; allowed is the name of a strategy")

    def _section(self, table: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        value = table.get(name, {})
        if not isinstance(value, dict):
            self._add((name,), f"{_shown((name,), value)}allowed is a section, written as [{name}]")
            return {}
        return value

    def _optional(self, table: Mapping[str, Any], name: str, kind: type[T]) -> T | None:
        return self._convert((name,), self._section(table, name), kind) if name in table else None

    def _convert(self, where: tuple[str, ...], value: object, kind: type[T]) -> T | None:
        """Return `value` as a `kind` without what is not allowed, which is noted; None: nothing is left.

        The path of an error of msgspec becomes the key in the message.
        """
        unset = self._unset
        left = self._expanded(where, self._with_known_keys(where, value, kind))
        while True:
            try:
                converted = msgspec.convert(left, kind)
            except (msgspec.ValidationError, UltraError) as error:
                message, keys = _read_error(error)
                # What is missing because it was wrong has been noted already.
                fewer = isinstance(left, dict) and isinstance(value, dict) and len(left) < len(value)
                if _is_own_check(message, keys):
                    if not (fewer and message == _own_check({}, kind)):
                        self._add_check(where, left, kind, message)
                    return None
                if not (message.startswith("Object missing") and fewer and not keys):
                    self._add((*where, *keys), _explained(message, (*where, *keys), _inside(left, keys)))
                if not keys or not isinstance(left, dict) or keys[0] not in left:
                    return None
                left = {name: item for name, item in left.items() if name != keys[0]}
            else:
                return converted if self._unset == unset else None  # it lacks something, such as a key

    def _add_check(self, where: tuple[str, ...], value: object, kind: type, message: str) -> None:
        """Note what the check of a `kind` says of each key that it refuses by itself, or else of all."""
        found = False
        lacking = _own_check({}, kind)  # which says what is missing, and is the fault of no key
        for name, item in value.items() if isinstance(value, dict) else ():
            alone = _own_check({name: item}, kind)
            if alone not in (None, lacking):
                found = True
                self._add((*where, name), str(alone))
        if not found:
            self._add(where, message)

    def _with_known_keys(self, where: tuple[str, ...], value: object, kind: type) -> object:
        """Return `value` without keys that a `kind` does not have, and without policies that are wrong."""
        if not isinstance(value, dict) or not issubclass(kind, Struct):
            return value
        known = kind.__struct_fields__
        kept = {}
        for name, item in value.items():
            if name not in known:
                self._add((*where, name), f"unknown key; allowed are: {', '.join(known)}")
            elif name not in _NESTED or not isinstance(item, dict):
                kept[name] = item
            else:
                noted = len(self.problems)
                right = self._convert((*where, name), item, _NESTED[name]) is not None
                if right and len(self.problems) == noted:
                    kept[name] = item
        return kept

    def _expanded(self, where: tuple[str, ...], value: object) -> object:
        """Return `value` with each ``${VAR}`` in its texts replaced."""
        if isinstance(value, dict):
            return {key: self._expanded((*where, str(key)), item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._expanded(where, item) for item in value]
        if not isinstance(value, str):
            return value
        unset = [variable for variable in _VARIABLE.findall(value) if variable not in os.environ]
        for variable in unset:
            self._unset += 1
            self._add(where, f"the environment variable {variable} is not set")
        if unset:
            return value
        self._variables |= dict.fromkeys(_VARIABLE.findall(value))
        return _VARIABLE.sub(lambda match: os.environ[match[1]], value)

    def _add(self, where: tuple[str, ...], message: str) -> None:
        problem = f"{self._lines.place(*where)}: {without_values(self._variables, message)}"
        self.problems[problem] = None


def _with_catalog(model: ModelConfig, catalog: Mapping[str, Facts]) -> ModelConfig:
    """Return `model` with what the catalog of the file tells of its deployments; their own options win."""
    if not any(deployment.model in catalog for deployment in model.deployments):
        return model
    told = tuple(
        structs.replace(each, options={**catalog.get(each.model, Facts()).told(), **each.options})
        for each in model.deployments
    )
    return structs.replace(model, model=told)


def _has_price(model: ModelConfig) -> bool:
    if model.price is not None:
        return True
    names = (deployment.model.partition(":") for deployment in model.deployments)
    told = any("price" in deployment.options for deployment in model.deployments)
    return told or any(model_info(provider, name).price is not None for provider, _, name in names)


def _read_error(error: Exception) -> tuple[str, tuple[str, ...]]:
    """Return the message of an error of msgspec, or of a Struct's own check, and the keys of its path."""
    message, _, path = str(error).partition(" - at `$")
    return message, tuple(re.findall(r"\w+", path))


def _own_check(value: object, kind: type) -> str | None:
    """Return what the check of a `kind` says of this value; None: nothing."""
    try:
        msgspec.convert(value, kind)
    except (msgspec.ValidationError, UltraError) as error:
        message, keys = _read_error(error)
        return message if _is_own_check(message, keys) else None
    return None


def _is_own_check(message: str, keys: tuple[str, ...]) -> bool:
    return not keys and not message.startswith(("Expected", "Object", "Invalid"))


def _inside(value: object, keys: tuple[str, ...]) -> object:
    for key in keys:
        if isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            value = value.get(key) if isinstance(value, dict) else None
    return value


def _explained(message: str, where: tuple[str, ...], value: object) -> str:
    """Return the message of msgspec in words for users, with what was found."""
    choices = _CHOICES.get(where[-1])
    if choices and "price" not in where[:-1] and where[0] != "catalog":
        return f"{_shown(where, value)}allowed is {choices}"
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", message):
        # The keys of what stands in a list are not checked before.
        kind = PriceTier if "tiers" in where else KeyConfig if where[0] == "serve" else DeploymentConfig
        return f"unknown key {unknown[1]}; allowed are: {', '.join(kind.__struct_fields__)}"
    if message.startswith("Invalid enum value"):
        return f"{_shown(where, value)}allowed is one of: {', '.join(get_args(OutputMode))}"
    expected = re.match(r"Expected `([^`]*)`, got", message)
    if expected is None:
        return f"{_shown(where, value)}{message}"
    allowed = [_WORDS.get(word, word) for word in expected[1].split(" | ") if word != "null"]
    return f"{_shown(where, value)}allowed is {' or '.join(allowed)}"


def _shown(where: tuple[str, ...], value: object) -> str:
    """Return what was found; nothing where it may hold a key."""
    if isinstance(value, (str, int, float)) and not _SECRET & set(where):
        return f"found {value!r}; "
    return ""
