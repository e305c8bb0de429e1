"""The sections `[[serve.keys]]`, and the other settings of the service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ultra import BadCall, ConfigError
from ultra.config.keys import KeyConfig, hash_of, new_key
from ultra.config.loading import load_configuration
from ultra.config.serving import ServeConfig

if TYPE_CHECKING:
    from pathlib import Path

MODELS = """
[models.gpt]
model = "openai:gpt-4o-mini"
api_key = "any-key-will-do"

[ensembles.council]
"""

HASH = hash_of("sk-ultra-any")


def written(directory: Path, text: str) -> Path:
    path = directory / "ultra.toml"
    path.write_text(MODELS + text, "utf-8")
    return path


def test_keys_are_read(tmp_path: Path) -> None:
    text = f"""
[serve]
budgets = "sqlite:///limits.db"

[[serve.keys]]
name = "alice"
hash = "{HASH}"
models = ["council", "gpt", "ultra"]
requests_per_minute = 60
tokens_per_minute = 100000
concurrency = 4
dollars_per_day = 5
dollars_per_month = 50.5

[[serve.keys]]
name = "bob"
hash = "{hash_of("another")}"
"""
    serve = load_configuration(written(tmp_path, text)).serve

    alice, bob = serve.keys
    assert alice == KeyConfig(
        name="alice",
        hash=HASH,
        models=("council", "gpt", "ultra"),
        requests_per_minute=60,
        tokens_per_minute=100000,
        concurrency=4,
        dollars_per_day=5.0,
        dollars_per_month=50.5,
    )
    assert (bob.name, bob.models, bob.concurrency) == ("bob", None, None)
    assert serve.budgets == "sqlite:///limits.db"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ('name = "a b"', "name is 'a b'; it must be 1 to 64 letters"),
        ('hash = "sk-ultra-secret"', "hash must be 'sha256:' and 64 hex digits"),
        ("concurrency = 0", "concurrency is 0; it must be a whole number, 1 or more"),
        ("dollars_per_day = -1.0", "dollars_per_day is -1.0; it must be a number of dollars above 0"),
        ('dollars_per_day = "5"', "allowed is a number"),
        ('models = ["counsil"]', "found 'counsil'; allowed are: council, gpt, ultra; did you mean 'council'"),
        ("models = []", "models is empty"),
        ("colour = 1", "unknown key colour; allowed are: name, hash, models"),
    ],
)
def test_a_key_that_is_wrong_is_told_with_its_place_and_without_its_secret(
    tmp_path: Path, fields: str, told: str
) -> None:
    own = {"name": '"alice"', "hash": f'"{HASH}"'}
    name, _, value = fields.partition(" = ")
    own[name] = value
    text = "\n".join(["[[serve.keys]]", *(f"{name} = {value}" for name, value in own.items())])

    with pytest.raises(ConfigError) as caught:
        load_configuration(written(tmp_path, text))

    assert told in str(caught.value)
    assert "ultra.toml:7" in str(caught.value) or "ultra.toml:8" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert HASH not in str(caught.value)


def test_names_and_keys_are_each_of_one_client(tmp_path: Path) -> None:
    text = "".join(f'[[serve.keys]]\nname = "{name}"\nhash = "{HASH}"\n' for name in ("alice", "alice"))

    with pytest.raises(ConfigError) as caught:
        load_configuration(written(tmp_path, text))

    assert "two keys of the name 'alice'" in str(caught.value)
    assert "that of another name, too" in str(caught.value)


def test_a_key_is_random_and_only_its_hash_tells_it() -> None:
    first, second = new_key(), new_key()
    config = KeyConfig(name="alice", hash=hash_of(first))

    assert first != second
    assert first.startswith("sk-ultra-")
    assert len(first) == len("sk-ultra-") + 43  # 256 bits in base64
    assert config.is_key(hash_of(first))
    assert not config.is_key(hash_of(second))
    assert first not in repr(config)
    assert config.hash not in repr(ServeConfig(keys=(config,)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("budgets", "mysql://user:passphrase@host"),
        ("budgets", "sqlite:///"),
        ("cors_origins", ("chat.example.org",)),
        ("cors_origins", ("https://chat.example.org/",)),
        ("cors_origins", ("https://[::1",)),
        ("assumed_price", -1.0),
        ("max_image", 0),
    ],
)
def test_other_settings_that_are_wrong_are_refused(name: str, value: object) -> None:
    with pytest.raises(BadCall) as caught:
        ServeConfig(**{name: value})  # type: ignore[arg-type]

    assert "passphrase" not in str(caught.value)


def test_the_password_of_a_store_is_not_shown() -> None:
    assert "passphrase" not in repr(ServeConfig(budgets="redis://user:passphrase@host"))
