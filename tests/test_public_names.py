"""What `import ultra` gives: every public name, and nothing imported before somebody asks for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ultra


@pytest.mark.parametrize("name", ultra.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(ultra, name) is not None
    assert name in dir(ultra)


def test_the_names_and_their_homes_are_the_same_names() -> None:
    assert sorted(ultra._HOMES) == sorted(ultra.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Orchestra'"):
        ultra.Orchestra  # noqa: B018 - looking it up is the test


def test_importing_ultra_imports_nothing_else_of_it_and_no_library() -> None:
    code = (
        "import sys; before = set(sys.modules); import ultra; "
        "print([name for name in sorted(sys.modules.keys() - before) if name not in sys.stdlib_module_names "
        "and name.partition('.')[0] not in sys.stdlib_module_names])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "['ultra']"
