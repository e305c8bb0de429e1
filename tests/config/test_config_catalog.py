"""What a configuration tells of models: `[catalog."provider:model"]`, and prices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ultra import MultiLLMOrchestrator, Price
from ultra.clients import HTTPClient
from ultra.clients.catalog import Facts
from ultra.clients.quirks import Quirks
from ultra.config.loading import load_configuration
from ultra.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

ONE = '[models.a]\nmodel = "vllm:my-model.v2"\n'

TOLD = """\
[catalog."vllm:my-model.v2"]
context_window = 8192
output_limit = 2048
images = true
tools = false
output = "json"
price = { input = 1.0, output = 2.0, tiers = [{ above = 4096, input = 2.0, output = 4.0 }] }
quirks = { no_system = true, omitted = ["temperature"] }

"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "ultra.toml"
    path.write_text(text, "utf-8")
    return path


def clients(path: Path, name: str) -> list[HTTPClient]:
    found = load_configuration(path).models[name].connect()
    assert all(isinstance(client, HTTPClient) for client in found)
    return found  # type: ignore[return-value]


def test_a_file_tells_what_a_model_can_do(tmp_path: Path) -> None:
    path = write(tmp_path, TOLD + ONE)

    (client,) = clients(path, "a")

    assert load_configuration(path).catalog["vllm:my-model.v2"].images is True
    assert (client.context_window, client.info.output_limit) == (8192, 2048)
    assert (client.info.images, client.info.pdf, client.info.tools) == (True, None, False)
    assert client.info.output == "json"
    assert client.info.quirks == Quirks(no_system=True, omitted=("temperature",))
    assert client.info.price is not None
    assert client.info.price.tiers[0].above == 4096


def test_options_of_a_model_and_of_a_deployment_go_before_the_catalog_of_the_file(tmp_path: Path) -> None:
    models = """\
[models.a]
model = ["vllm:my-model.v2", { model = "vllm:my-model.v2", options = { images = false } }, "vllm:other"]
options = { output = "schema", temperature = 0.5 }
"""
    first, second, third = clients(write(tmp_path, TOLD + models), "a")

    assert [each.info.output for each in (first, second, third)] == ["schema", "schema", "schema"]
    assert [each.info.images for each in (first, second, third)] == [True, False, None]
    assert [each.context_window for each in (first, second, third)] == [8192, 8192, None]
    assert {each.options.temperature for each in (first, second, third)} == {0.5}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            '[catalog."vllm:my.v2"]\nimagse = true\n',
            "2: catalog.vllm:my.v2.imagse: unknown key; allowed are: conte",
        ),
        (
            '[catalog."vllm:m"]\nimages = "yes"\n',
            "2: catalog.vllm:m.images: found 'yes'; allowed is true or false",
        ),
        (
            '[catalog."vllm:m"]\noutput = "jsn"\n',
            "2: catalog.vllm:m.output: found 'jsn'; allowed is one of: schema",
        ),
        (
            '[catalog."vllm:m"]\noutput_limit = 0\n',
            "2: catalog.vllm:m.output_limit: output_limit must be",
        ),
        ('[catalog."vllm:m"]\nprice = 3\n', "2: catalog.vllm:m.price: found 3; allowed is a section"),
        ('[catalog."vllm:m"]\nprice = { input = 1 }\n', "2: catalog.vllm:m.price"),
        (
            '[catalog."vllm:m"]\nprice = { inptu = 1 }\n',
            "price.inptu: unknown key; allowed are: input, output",
        ),
        ('[catalog."vllm:m"]\nquirks = { no_sytem = true }\n', "no_sytem: unknown key; allowed are: omitted"),
        (
            '[catalog."vllm:m"]\nprice = { input = 1, output = 1, tiers = [{ abve = 1 }] }\n',
            "unknown key abve; allowed are: above, input, output",
        ),
        (
            '[catalog."nobody:m"]\nimages = true\n',
            "1: catalog.nobody:m: there is no provider 'nobody'; the prov",
        ),
        ("[catalog.gpt]\nimages = true\n", "1: catalog.gpt: allowed is the name of a model as in [catalog."),
        ('[catalog]\n"vllm:m" = 3\n', "2: catalog.vllm:m: found 3; allowed is a section"),
        (
            ONE + 'price = "cheap"\n',
            "3: models.a.price: found 'cheap'; allowed is a section with input and outp",
        ),
    ],
)
def test_a_wrong_entry_is_refused_with_its_place_and_the_choices(
    tmp_path: Path, text: str, says: str
) -> None:
    path = write(tmp_path, text if ONE in text else text + ONE)
    with pytest.raises(ConfigError) as caught:
        load_configuration(path)
    assert says in str(caught.value)


def test_a_price_of_the_catalog_is_enough_for_a_limit_of_costs(tmp_path: Path) -> None:
    known = '[run]\nmax_cost = 1.0\n[models.a]\nmodel = "openai:gpt-4o-mini"\n'
    assert load_configuration(write(tmp_path, known)).run.max_cost == 1.0
    assert load_configuration(write(tmp_path, "[run]\nmax_cost = 1.0\n" + TOLD + ONE)).run.max_cost == 1.0


def test_a_price_of_the_file_goes_before_that_of_the_catalog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    entry = '[catalog."openai:gpt-4o"]\nprice = { input = 7.0, output = 8.0 }\n'
    models = '[models.a]\nmodel = "openai:gpt-4o"\n[models.b]\nmodel = "openai:gpt-4o"\n'
    own = "price = { input = 1.0, output = 1.0 }\n"

    found = MultiLLMOrchestrator.from_config(write(tmp_path, entry + models + own))

    assert found._registry.get("a").price == Price(input=7, output=8)
    assert found._registry.get("b").price == Price(input=1, output=1)


def test_an_entry_for_a_model_that_is_not_used_does_no_harm(tmp_path: Path) -> None:
    configuration = load_configuration(write(tmp_path, '[catalog."openai:x"]\npdf = true\n' + ONE))
    assert configuration.catalog == {"openai:x": Facts(pdf=True)}
    assert configuration.models["a"].model == "vllm:my-model.v2"
