"""Finding a provider by its name, making the client of a model, and saying what can be used here."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ultra._support.checks import did_you_mean
from ultra._support.secrecy import hiding_frames
from ultra.clients.catalog import PROVIDERS, Facts, Provider
from ultra.clients.http.fetching import MediaFetcher
from ultra.clients.http.limits import HTTPLimits
from ultra.clients.options import CallOptions, checked_key
from ultra.clients.wire.addresses import shown_url
from ultra.clients.wire.redaction import redact_keys, redact_secrets
from ultra.errors import BadCall, MissingExtra, UltraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from importlib.metadata import EntryPoint, EntryPoints

    from ultra.clients.http.client import HTTPClient

__all__ = [
    "ProviderStatus",
    "connect",
    "find_provider",
    "key_variable",
    "models_with_keys",
    "provider_statuses",
]

_GROUP: Final = "ultra.providers"
"""The group of entry points by which other packages add providers."""

_PROBE: Final = 0.2  # [s]; a server on this machine answers in less

_FACTS: Final = tuple(name for name in Facts.__struct_fields__ if name not in CallOptions.__struct_fields__)
"""The arguments of `connect` that tell of the model; ``context_window`` is an option of calls, too."""

_THIS_MACHINE: Final = ("localhost", "127.0.0.1", "::1")


class ProviderStatus(Struct, frozen=True, kw_only=True):
    """Whether a provider can be used here; `detail` says by what it can, or why it cannot."""

    name: str
    available: bool
    detail: str
    example: str


@hiding_frames
def connect(
    name: str,
    *,
    api_key: str | None = None,
    base_url: str | None = None,
    **options: Any,  # noqa: ANN401 - each has its own type, checked below
) -> HTTPClient:
    """Make the client of a model; nothing is sent before it is asked something.

    Providers are Ultra's own and those of installed packages (see `Provider`); a client of the latter is
    what the package makes, which need not be an `HTTPClient`.

    Args:
        name: ``provider:model``, such as ``openai:gpt-4o-mini`` or ``local:careful``. Everything behind
            the first colon is the provider's own name of the model. ``local`` alone is its first voice.
        api_key: by default from the environment, in the provider's usual variable.
        base_url: another endpoint that speaks the provider's protocol, written as the provider's official
            client takes it; by default from the environment, then the provider's own.
        options: defaults of every call (temperature, max_tokens, … see `CallOptions`), ``timeout``,
            ``connect_timeout`` and ``read_timeout`` [s], ``max_response_bytes``, ``transport`` (an httpx
            transport in place of the network), ``fetch_urls`` (whether images and documents at an address are
            fetched where the API takes only bytes; off by default), for those who speak OpenAI's dialect
            ``api`` (``"chat"``, or ``"responses"``: the Responses API), and for Azure ``api_version``. What
            the program knows of the model goes before what the catalog says: ``context_window``,
            ``output_limit`` [tokens], ``images``, ``pdf``, ``audio``, ``tools``, ``parallel_tools``,
            ``reasoning`` (True or False), ``output`` (``"schema"``, ``"json"``, ``"tool"``, ``"none"``),
            ``price`` (`Price`) and ``quirks``
            (`Quirks`); see `ModelInfo`.

    Raises:
        BadCall: no such provider or option, no model named, no key found, or a package whose provider is
            broken; the message names the choices, or the package.
        MissingExtra: ``local`` needs packages that are not installed.
    """
    if not isinstance(name, str):
        raise BadCall(f"the model to connect to is {name!r}; give text such as 'openai:gpt-4o-mini'")
    for what, given in (("api_key", api_key), ("base_url", base_url)):
        if not (given is None or isinstance(given, str)):
            raise BadCall(f"{what} must be text, not {type(given).__name__}")
    provider_name, _, model = name.partition(":")
    provider = find_provider(provider_name)
    settings = _settings(provider_name, provider, options)
    if provider_name == "local":
        if api_key is not None or base_url is not None or {"transport", "fetch_urls"} & settings.keys():
            raise BadCall("the embedded model takes no api_key, base_url, transport or fetch_urls")
        if "info" in settings:
            raise BadCall("what the embedded model can do is known, and cannot be told")
        return _maker(provider)(*[model] if model else [], **settings)
    if not model:
        example = _example(provider_name, provider)
        raise BadCall(f"{name!r} names no model; write it behind the provider, as in {example!r}")
    found_url = _address(provider_name, provider, base_url)
    found_key, token = _credentials(provider_name, provider, found_url, api_key)
    if token is not None:
        settings["options"] = _with_token(settings["options"], token)
    arguments = {"provider": provider_name, "base_url": found_url, "api_key": found_key, **settings}
    if provider_name in PROVIDERS:
        return _maker(provider)(model, **arguments)
    with _fenced(_entry_point(provider_name), "cannot make its client", (found_key or token or "",)):
        return _maker(provider)(model, **arguments)


def find_provider(name: str) -> Provider:
    """Return the provider of this name: Ultra's own, or that of an installed package.

    Raises:
        BadCall: there is none, or the package that has it is broken.
    """
    return PROVIDERS[name] if name in PROVIDERS else _load(_entry_point(name))


def key_variable(provider: str) -> str | None:
    """Return the variable of the environment that this provider's key is taken from.

    None: no such variable is set, or there is no such provider.
    """
    try:
        known = find_provider(provider)
    except BadCall:
        return None
    return _key_variable(known, _first(known.urls) or known.base_url)


def _address(name: str, provider: Provider, base_url: str | None) -> str | None:
    found = base_url or _first(provider.urls) or provider.base_url
    if found is None and provider.urls:
        raise BadCall(f"{name} has no endpoint of its own: pass base_url or set {provider.urls[0]}")
    return found


def _key_variable(provider: Provider, url: str | None) -> str | None:
    """Return the variable that holds what goes to `url`, None if none is set; one of blanks is not set."""
    found = [name for name in provider.keys if os.environ.get(name, "").strip()]
    if url != provider.base_url:
        found.sort(key=lambda name: name not in provider.tokens)  # stable
    return next(iter(found), None)


def _credentials(
    name: str, provider: Provider, url: str | None, api_key: str | None
) -> tuple[str | None, str | None]:
    """Return the key and the bearer token for `url`, at most one of them. Raises `BadCall`."""
    found = (api_key or "").strip()
    variable = None if found else _key_variable(provider, url)
    if variable is not None:
        found = os.environ[variable].strip()
    if not found and provider.needs_key and url in {provider.base_url, _first(provider.urls)}:
        raise BadCall(f"no key for {name}: pass api_key{_or_set(provider.keys)}")
    if variable in provider.tokens:
        return None, checked_key(name, found)
    return found or None, None


def _with_token(options: CallOptions, token: str) -> CallOptions:
    headers = {"authorization": f"Bearer {token}", **(options.extra_headers or {})}
    return replace(options, extra_headers=headers)


def provider_statuses() -> list[ProviderStatus]:
    """Say of every provider whether it can be used here, without calling any of them.

    A key that is set counts as usable, unchecked. For servers that run on this machine a connection is
    tried, which blocks for up to a fifth of a second each. Packages with providers are imported.
    """
    found = [_status(name, provider) for name, provider in PROVIDERS.items()]
    for entry in _entry_points():
        if entry.name in PROVIDERS:
            continue
        try:
            found.append(_status(entry.name, find_provider(entry.name)))
        except BadCall as error:
            found.append(ProviderStatus(name=entry.name, available=False, detail=str(error), example=""))
    return found


def models_with_keys() -> tuple[str, ...]:
    """Return a model, as `connect` takes it, of each provider whose key is set in the environment.

    Nothing is asked. Providers whose models have names of the user's own, such as Azure, are left out.
    """
    found = []
    for name in dict.fromkeys([*PROVIDERS, *(entry.name for entry in _entry_points())]):
        try:
            provider = find_provider(name)
        except BadCall:  # a broken package, of which `provider_statuses` tells
            continue
        if provider.needs_key and provider.base_url and provider.example and key_variable(name) is not None:
            found.append(provider.example)
    return tuple(found)


def embedded_models() -> tuple[str, ...]:
    """Return the voices of the embedded model, as `connect` takes them: for programs where no key is set.

    Raises:
        BadCall: it is not installed; the message names both ways out.
    """
    from ultra.clients.local.client import VOICES  # noqa: PLC0415 - only where no key is set
    from ultra.clients.local.embedded import find_model  # noqa: PLC0415 - as above

    try:
        find_model()
    except MissingExtra as missing:
        raise BadCall(
            "no provider's key is set, such as OPENAI_API_KEY ('ultra models' lists them), and there is no "
            f"local model: {missing}"
        ) from None
    return tuple(f"local:{voice}" for voice in VOICES)


# --- providers of other packages -----------------------------------------------------------------


def _entry_points() -> EntryPoints:
    from importlib.metadata import entry_points  # noqa: PLC0415 - it takes long, and few programs need it

    return entry_points(group=_GROUP)


def _entry_point(name: str) -> EntryPoint:
    """Return the entry point of the provider called `name`. Raises `BadCall`."""
    offered = _entry_points()
    found = [entry for entry in offered if entry.name == name]
    if not found:
        choices = dict.fromkeys([*PROVIDERS, *sorted(offered.names)])
        hint = did_you_mean(name, choices)
        raise BadCall(f"there is no provider {name!r}; the providers are: {', '.join(choices)}{hint}")
    if len(found) > 1:
        packages = " and ".join(sorted(map(_package_of, found)))
        raise BadCall(f"the provider {name!r} is in several packages, {packages}; uninstall all but one")
    return found[0]


def _load(entry: EntryPoint) -> Provider:
    with _fenced(entry, "cannot be loaded"):
        found = entry.load()
    if not isinstance(found, Provider):
        raise _broken(entry, f"is of type {type(found).__name__}; it must be an ultra.clients.Provider")
    try:
        return msgspec.convert(msgspec.structs.asdict(found), Provider)
    except msgspec.ValidationError as error:
        raise _broken(entry, f"has a field of another type: {error}") from None


def _broken(entry: EntryPoint, reason: str) -> BadCall:
    return BadCall(
        f"the provider {entry.name!r} of the package {_package_of(entry)} is broken: "
        f"its entry point {entry.value!r} {reason}"
    )


@contextmanager
def _fenced(entry: EntryPoint, failed: str, secrets: tuple[str, ...] = ()) -> Iterator[None]:
    """Turn whatever the package's own code raises in the block into a `BadCall` that names the package."""
    try:
        yield
    except UltraError:
        raise
    except (Exception, SystemExit) as error:  # some modules are programs, and end
        said = redact_secrets(f"{type(error).__name__}: {error}", tuple(filter(None, secrets)))
        raise BadCall(
            f"the provider {entry.name!r} of the package {_package_of(entry)} {failed} "
            f"(entry point {entry.value!r}): {redact_keys(said)}"
        ) from error


def _package_of(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "that is not known"


# --- whether a provider can be used here ---------------------------------------------------------


def _status(name: str, provider: Provider) -> ProviderStatus:
    available, detail = _judge(provider)
    return ProviderStatus(name=name, available=available, detail=detail, example=_example(name, provider))


def _judge(provider: Provider) -> tuple[bool, str]:
    if provider.base_url is None and provider.urls and not _first(provider.urls):
        return False, f"{provider.urls[0]} is not set"
    if provider.client == PROVIDERS["local"].client:
        return _judge_embedded()
    if provider.needs_key:
        key = _key_variable(provider, _first(provider.urls) or provider.base_url)
        return (True, f"key in {key}") if key else (False, f"{' or '.join(provider.keys)} is not set")
    address = _first(provider.urls) or provider.base_url
    return _judge_server(address) if address else (True, "not tried")


def _judge_embedded() -> tuple[bool, str]:
    from ultra.clients.local.embedded import find_model  # noqa: PLC0415 - only where it is asked for

    try:
        model = find_model()
    except MissingExtra as missing:
        return False, str(missing)
    return True, f"{model.stem}, embedded"


def _judge_server(url: str) -> tuple[bool, str]:
    shown = shown_url(url)
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return False, f"{shown} is no address"
    if host not in _THIS_MACHINE:
        return True, f"the server at {shown}, not tried"
    try:
        socket.create_connection((host, port or 80), _PROBE).close()
    except OSError:
        return False, f"no server listens at {shown}"
    return True, f"a server listens at {shown}"


# --- making a client -----------------------------------------------------------------------------


def _maker(provider: Provider) -> Callable[..., HTTPClient]:
    module, _, name = provider.client.partition(":")
    found: Callable[..., HTTPClient] = getattr(import_module(module), name)
    return found


def _example(name: str, provider: Provider) -> str:
    return provider.example or f"{name}:model"


def _or_set(variables: tuple[str, ...]) -> str:
    return f" or set {' or '.join(variables)}" if variables else ""


def _first(variables: tuple[str, ...]) -> str | None:
    return next((value for variable in variables if (value := os.environ.get(variable, "").strip())), None)


def _settings(name: str, provider: Provider, given: dict[str, Any]) -> dict[str, Any]:
    """Sort the options that are `given` into the arguments of a client."""
    calls = {option: value for option, value in given.items() if option in CallOptions.__struct_fields__}
    limits = {option: value for option, value in given.items() if option in HTTPLimits.__struct_fields__}
    further = ("transport", "fetch_urls", *provider.options)
    facts = {option: value for option, value in given.items() if option in _FACTS}
    settings = {option: value for option, value in given.items() if option in further}
    transport = given.get("transport")
    if not (transport is None or hasattr(transport, "handle_async_request")):
        raise BadCall(f"transport must be an httpx.AsyncBaseTransport, not {type(transport).__name__}")
    if not isinstance(given.get("fetch_urls", False), (bool, MediaFetcher)):
        raise BadCall(f"fetch_urls is {given['fetch_urls']!r}; it must be True or False")
    for option in given:
        if option not in {*calls, *limits, *settings, *facts}:
            choices = ", ".join(
                (*CallOptions.__struct_fields__, *HTTPLimits.__struct_fields__, *further, *_FACTS)
            )
            raise BadCall(f"unknown option {option!r}; the options of {name} are: {choices}")
    try:
        checked = msgspec.convert(limits, HTTPLimits)
    except msgspec.ValidationError as error:
        raise BadCall(f"a limit of {name} is not allowed: {error}") from None
    if facts:
        settings["info"] = Facts.of(facts)
    return {"options": CallOptions().override(**calls), "limits": checked, **settings}
