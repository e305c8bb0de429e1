"""Providers that other packages add by an entry point."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest

from helpers.packages import install
from ultra.clients import CallOptions, HTTPLimits, OpenAIClient, connect, provider_statuses
from ultra.clients.adapter import ClientAdapter
from ultra.clients.catalog import PROVIDERS
from ultra.clients.providers import find_provider, key_variable
from ultra.errors import BadCall, ModelError
from ultra.messages.request import ModelRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = "acme-0123456789"

ACME = """
from ultra.clients import Provider

ACME = Provider(
    client="ultra.clients:OpenAIClient",
    base_url="https://api.acme.example/v1",
    keys=("ACME_API_KEY",),
    urls=("ACME_BASE_URL",),
    example="acme:large",
)
"""

OWN_CLIENT = """
from ultra.clients import Provider

class Client:
    def __init__(self, model, **settings):
        self.model, self.settings = model, settings

    async def generate(self, prompt):
        return f"{self.model} says: {prompt}"

OWN = Provider(client="own_ultra:Client", needs_key=False, options=("region",))
"""


@pytest.fixture
def add(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Install a package with one provider: ``add(package, provider, value, **modules)``."""
    for variable in ("ACME_API_KEY", "ACME_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)

    def add(package: str, provider: str, value: str, **modules: str) -> None:
        install(
            monkeypatch,
            tmp_path / package,
            name=package,
            group="ultra.providers",
            entry_points={provider: value},
            modules=modules,
        )

    return add


@pytest.fixture
def acme(add: Callable[..., None]) -> None:
    add("acme-ultra", "acme", "acme_ultra:ACME", acme_ultra=ACME)


@pytest.mark.usefixtures("acme")
def test_a_provider_of_a_package_is_connected_to_like_ultras_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_API_KEY", KEY)

    client = connect("acme:large", temperature=0.5, timeout=7)

    assert isinstance(client, OpenAIClient)
    assert repr(client) == "<OpenAIClient acme:large>"
    assert client.dialect.url(stream=False) == "https://api.acme.example/v1/chat/completions"
    assert client._headers.value["authorization"] == f"Bearer {KEY}"
    assert (client.options.temperature, client.limits.timeout) == (0.5, 7)


@pytest.mark.usefixtures("acme")
async def test_its_errors_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_BASE_URL", "http://in.memory/v1")
    client = connect(
        "acme:large", api_key=KEY, transport=httpx.MockTransport(lambda _: httpx.Response(500, text="no"))
    )

    with pytest.raises(ModelError, match=r"acme: no \[server, HTTP 500\]"):
        await client.respond(ModelRequest.of("Hi"))
    await client.aclose()


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acme:large", "no key for acme: pass api_key or set ACME_API_KEY"),
        ("acme", "'acme' names no model; write it behind the provider, as in 'acme:large'"),
        ("acne:large", "there is no provider 'acne'; .* local, openai, .*, acme; did you mean 'acme'[?]$"),
    ],
)
def test_what_is_wrong_with_a_call_is_said_as_of_ultras_own(name: str, message: str) -> None:
    with pytest.raises(BadCall, match=message):
        connect(name)


@pytest.mark.usefixtures("acme")
def test_a_package_is_imported_only_when_its_provider_is_asked_for() -> None:
    connect("openai:m", api_key=KEY)
    with pytest.raises(BadCall):
        connect("acne:m")
    assert "acme_ultra" not in sys.modules

    find_provider("acme")
    assert "acme_ultra" in sys.modules


async def test_the_client_of_a_package_may_be_of_any_shape(add: Callable[..., None]) -> None:
    add("own-ultra", "own", "own_ultra:OWN", own_ultra=OWN_CLIENT)

    client: object = connect("own:small", region="eu", seed=7)

    assert vars(client)["settings"] == {
        "provider": "own",
        "base_url": None,
        "api_key": None,
        "options": CallOptions(seed=7),
        "limits": HTTPLimits(),
        "region": "eu",
    }
    assert (await ClientAdapter(client).call(ModelRequest.of("Hi"))).content == "small says: Hi"
    with pytest.raises(BadCall, match=r"unknown option 'regoin'; the options of own are: .*region"):
        connect("own:small", regoin="eu")


MISSING = "import a_module_that_is_not_there"
OTHER = "OTHER = {'client': 'x:Y'}"
UNTYPED = "from ultra.clients import Provider\nUNTYPED = Provider(client='x:Y', keys='ACME_API_KEY')"
HOMELESS = (
    "from ultra.clients import Provider\nHOMELESS = Provider(client='homeless:Nobody', needs_key=False)"
)
RAISING = """
from ultra.clients import Provider

def make(model, *, api_key, **settings):
    raise RuntimeError(f"no good: {api_key}")

RAISING = Provider(client="raising:make", keys=("ACME_API_KEY",))
"""


@pytest.mark.parametrize(
    ("value", "modules", "message"),
    [
        ("missing:X", {"missing": MISSING}, "cannot be loaded .*ModuleNotFoundError: No module named 'a_mod"),
        ("absent:X", {}, "cannot be loaded .*ModuleNotFoundError: No module named 'absent'"),
        ("other:NONE", {"other": OTHER}, "cannot be loaded .*AttributeError: .*'NONE'"),
        ("other:OTHER", {"other": OTHER}, "is of type dict; it must be an ultra.clients.Provider"),
        ("untyped:UNTYPED", {"untyped": UNTYPED}, "has a field of another type: .*keys"),
        ("homeless:HOMELESS", {"homeless": HOMELESS}, "cannot make its client .*AttributeError: .*'Nobody'"),
        ("raising:RAISING", {"raising": RAISING}, "cannot make its client .*RuntimeError: no good: "),
    ],
)
def test_a_broken_package_is_named_in_the_error(
    add: Callable[..., None], value: str, modules: dict[str, str], message: str
) -> None:
    add("broken-ultra", "broken", value, **modules)

    with pytest.raises(
        BadCall, match=f"the provider 'broken' of the package broken-ultra 1.0 .*{message}"
    ) as caught:
        connect("broken:m", api_key=KEY)
    assert KEY not in str(caught.value)


def test_a_refusal_by_the_package_itself_passes_unchanged(add: Callable[..., None]) -> None:
    source = RAISING.replace("RuntimeError", "BadCall").replace(
        "Provider\n", "Provider\nfrom ultra import BadCall\n", 1
    )
    add("broken-ultra", "broken", "raising:RAISING", raising=source.replace("{api_key}", "ask Acme"))

    with pytest.raises(BadCall, match=r"^no good: ask Acme$"):
        connect("broken:m", api_key=KEY)


def test_a_provider_in_two_packages_is_refused_with_both_names(add: Callable[..., None]) -> None:
    add("acme-ultra", "acme", "acme_ultra:ACME", acme_ultra=ACME)
    add("copy-ultra", "acme", "copy_ultra:ACME", copy_ultra=ACME)

    with pytest.raises(BadCall, match=r"in several packages, acme-ultra 1\.0 and copy-ultra 1\.0; uninstall"):
        connect("acme:large", api_key=KEY)


def test_no_package_can_take_the_name_of_ultras_own_provider(add: Callable[..., None]) -> None:
    add("acme-ultra", "openai", "acme_ultra:ACME", acme_ultra=ACME)

    assert find_provider("openai") is PROVIDERS["openai"]
    assert "acme_ultra" not in sys.modules
    assert [status.name for status in provider_statuses()].count("openai") == 1


@pytest.mark.usefixtures("acme")
def test_statuses_tell_of_the_providers_of_packages_too(
    add: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    add("broken-ultra", "broken", "absent:X")
    monkeypatch.setenv("ACME_API_KEY", KEY)

    found = {status.name: status for status in provider_statuses()}

    assert (found["acme"].available, found["acme"].detail) == (True, "key in ACME_API_KEY")
    assert found["acme"].example == "acme:large"
    assert not found["broken"].available
    assert "broken-ultra 1.0 cannot be loaded" in found["broken"].detail


@pytest.mark.usefixtures("acme")
def test_the_variable_of_a_packages_key_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    known = partial(key_variable, "acme")

    assert known() is None
    monkeypatch.setenv("ACME_API_KEY", KEY)
    assert known() == "ACME_API_KEY"
    assert key_variable("acne") is None
