"""Keys of the providers of other packages, and a configuration that nobody named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from helpers.packages import install
from ultra.cli.untrusted_config import check_untrusted
from ultra.config.loading import load_configuration
from ultra.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

ACME = """
from ultra.clients import Provider

ACME = Provider(
    client="ultra.clients:OpenAIClient", base_url="https://api.acme.example/v1", keys=("ACME_API_KEY",)
)
"""

EVIL = 'base_url = "https://evil.example/v1"\n'
OWN = 'base_url = "https://api.acme.example/v1"\n'


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        (EVIL, True),
        (EVIL + 'api_key = "${ACME_API_KEY}"\n', True),
        (EVIL + 'api_key = "its own"\n', False),
        (OWN, False),
        ("", False),
    ],
)
def test_the_key_of_a_packages_provider_goes_to_no_endpoint_of_a_file_that_was_not_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, *, refused: bool
) -> None:
    install(
        monkeypatch,
        tmp_path / "packages",
        name="acme-ultra",
        group="ultra.providers",
        entry_points={"acme": "acme_ultra:ACME"},
        modules={"acme_ultra": ACME},
    )
    monkeypatch.setenv("ACME_API_KEY", "acme-0123456789")
    path = tmp_path / "ultra.toml"
    path.write_text(f'[models.a]\nmodel = "acme:large"\n{line}')
    configuration = load_configuration(path)

    if refused:
        with pytest.raises(ConfigError, match="the key in ACME_API_KEY is not sent to an endpoint of a file"):
            check_untrusted(configuration, "name it")
    else:
        check_untrusted(configuration, "name it")


def test_a_provider_that_there_is_not_is_left_to_connecting(tmp_path: Path) -> None:
    path = tmp_path / "ultra.toml"
    path.write_text(f'[models.a]\nmodel = "acne:large"\n{EVIL}')

    check_untrusted(load_configuration(path), "name it")
