"""What gets built and installed: sdist, wheel, and an environment that has the wheel and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from configparser import ConfigParser
from email import message_from_string
from pathlib import Path, PurePosixPath

import pytest

import ultra
from helpers.paths import ROOT, SOURCE

pytest.importorskip("uv", reason="uv builds the packages; it comes with the dependency group dev")

pytestmark = pytest.mark.registry

PYTHON = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"


def _run(*command: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    # Without retries, it is known at once where no registry answers.
    environment = os.environ | {"UV_HTTP_RETRIES": "0"}
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, env=environment)


def _uv(*arguments: str | Path) -> None:
    """Run uv; skip the test if it fails and no registry answers, fail it if the fault is the package's."""
    done = _run(sys.executable, "-m", "uv", *arguments)
    if done.returncode == 0:
        return
    probe = _run(sys.executable, "-m", "uv", "pip", "compile", "--no-cache", "-", stdin="msgspec")
    if probe.returncode != 0:
        reason = probe.stderr.rpartition("cause: ")[2].strip()
        pytest.skip(f"no package registry answers: {reason}")
    pytest.fail(f"uv {arguments[0]} failed:\n{done.stderr}")


@pytest.fixture(scope="module")
def from_sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist of this checkout, and the wheel built from that sdist."""
    directory = tmp_path_factory.mktemp("from_sdist")
    _uv("build", "--out-dir", directory, ROOT)
    return directory


@pytest.fixture(scope="module")
def sdist(from_sdist: Path) -> Path:
    (path,) = from_sdist.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from this checkout."""
    directory = tmp_path_factory.mktemp("from_checkout")
    _uv("build", "--wheel", "--out-dir", directory, ROOT)
    (path,) = directory.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """A virtual environment in which the wheel and what it requires are all that is installed."""
    directory = tmp_path_factory.mktemp("empty") / "venv"
    _uv("venv", "--python", sys.executable, directory)
    _uv(
        *("pip", "install", "--python", directory / PYTHON),
        *("--constraints", ROOT / "constraints.txt", wheel),
    )
    return directory


def _source_files() -> set[str]:
    paths = (path for path in (SOURCE / "ultra").rglob("*") if path.is_file())
    return {path.relative_to(SOURCE).as_posix() for path in paths if "__pycache__" not in path.parts}


def _packed_files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    return {name for name in names if not PurePosixPath(name).parts[0].endswith(".dist-info")}


def _metadata(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (path for path in archive.namelist() if path.endswith(f".dist-info/{name}"))
        return archive.read(path).decode()


def test_the_wheel_has_every_file_of_the_package_ultra_and_nothing_else(wheel: Path) -> None:
    packed = _packed_files(wheel)

    assert packed == _source_files()
    assert {"ultra/actors/__init__.py", "ultra/supervisor/__init__.py", "ultra/py.typed"} <= packed


def test_the_sdist_has_the_source_once_and_no_links(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()

    packed = {PurePosixPath(*PurePosixPath(member.name).parts[1:]).as_posix() for member in members}
    files = {name for name in packed if name != "." and not (ROOT / name).is_dir()}
    source = {f"src/{name}" for name in _source_files()}
    ours = {"CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md", "pyproject.toml"}
    made_by_the_backend = {"PKG-INFO", "pyproject.toml.orig"}
    assert files - source == {*ours, *made_by_the_backend}
    assert source <= files
    assert not {"actors", "supervisor"} & packed
    assert not [member.name for member in members if member.issym() or member.islnk()]


def test_sdist_and_checkout_give_the_same_wheel(wheel: Path, from_sdist: Path) -> None:
    (other,) = from_sdist.glob("*.whl")

    assert _metadata(other, "RECORD") == _metadata(wheel, "RECORD")


def test_the_wheel_has_the_licences_of_all_that_is_in_it(wheel: Path) -> None:
    page = "src/ultra/service/page/static/vendor"
    metadata = message_from_string(_metadata(wheel, "METADATA"))

    # DOMPurify is used under Apache-2.0, one of its two; marked is MIT, and has parts under BSD-3-Clause.
    assert metadata["License-Expression"] == "Apache-2.0 AND MIT AND BSD-3-Clause"
    assert sorted(metadata.get_all("License-File", [])) == ["LICENSE", f"{page}/LICENSES.txt"]
    for name in ("LICENSE", f"{page}/LICENSES.txt"):
        assert _metadata(wheel, f"licenses/{name}") == (ROOT / name).read_text("utf-8")
    texts = (ROOT / page / "LICENSES.txt").read_text("utf-8")
    vendored = {path.name: path.read_text("utf-8") for path in (ROOT / page).glob("*.js")}
    assert vendored.keys() == {"marked.js", "purify.js"}
    versions = {name: re.findall(r"\d+[.]\d+[.]\d+", text)[0] for name, text in vendored.items()}
    assert f"marked.js is marked {versions['marked.js']} (MIT)" in texts
    assert f"purify.js is DOMPurify {versions['purify.js']} (Apache-2.0" in texts


def test_the_metadata_names_the_versions_of_python_and_no_address(wheel: Path) -> None:
    metadata = message_from_string(_metadata(wheel, "METADATA"))
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]

    assert metadata["Version"] == project["version"] == ultra.__version__
    classifiers = metadata.get_all("Classifier", [])
    versions = [each.rpartition(" ")[2] for each in classifiers if re.search(r"Python :: 3[.]\d+$", each)]
    assert versions == ["3.11", "3.12", "3.13"]
    assert metadata["Requires-Python"] == f">={versions[0]}"
    assert metadata.get_all("Provides-Extra") == sorted(project["optional-dependencies"])
    # Until the project has a public address, none is better than one that leads nowhere.
    assert not {"Project-URL", "Home-page", "Download-URL", "Author-email", "Maintainer-email"} & {*metadata}
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload() == (ROOT / "README.md").read_text("utf-8")


def test_the_wheel_installs_the_command_ultra_and_the_plugin_for_pytest(wheel: Path) -> None:
    entry_points = ConfigParser()
    entry_points.read_string(_metadata(wheel, "entry_points.txt"))

    assert dict(entry_points["console_scripts"]) == {"ultra": "ultra.cli:main"}
    assert dict(entry_points["pytest11"]) == {"ultra": "ultra.simulation.pytest_plugin"}


def test_the_installed_wheel_imports_the_runtime_in_an_empty_environment(environment: Path) -> None:
    code = "import ultra.actors, ultra.supervisor; print(ultra.actors.__file__, ultra.supervisor.__file__)"

    done = _run(environment / PYTHON, "-I", "-c", code)

    assert done.returncode == 0, done.stderr
    assert all(Path(path).is_relative_to(environment) for path in done.stdout.split())


def test_the_installed_wheel_claims_no_top_level_name_but_its_own(environment: Path) -> None:
    code = "import importlib.util as u; print([n for n in ('actors', 'supervisor', 'src') if u.find_spec(n)])"

    done = _run(environment / PYTHON, "-I", "-c", code)

    assert (done.stdout.strip(), done.stderr) == ("[]", "")
