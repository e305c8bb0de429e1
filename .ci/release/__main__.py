"""Builds what a release consists of, checks it, and tries it as users will have it.

    python3 .ci/release DIRECTORY     # UV names the uv to use

DIRECTORY/dist has the sdist and the wheel, and DIRECTORY/sbom a bill of materials for the package alone and
for each extra; the environments beside them are those in which they were tried. Every check runs, whatever
became of those before it; the exit code is 1 if one of them failed. Versions are those of constraints.txt.

What has to be in the files is checked by tests/test_packaging.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import traceback
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from environments import PYTHONS, Failed, Installer, embedded_model_answers, found_pythons, run
from extras import EXTRAS, Extra, commands_help, environment_of, extras_absent
from sbom import write_sbom

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT: Final = Path(__file__).resolve().parents[2]
AT_ONCE: Final = 2


def main() -> int:
    """Build, run all checks, and return the exit code."""
    scratch = Path(sys.argv[1]).resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    installer = Installer(os.environ.get("UV", "uv"), ROOT, scratch)

    dist, sbom = scratch / "dist", scratch / "sbom"
    run([installer.uv, "build", "--quiet", "--clear", "--out-dir", dist, ROOT])
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    tools = checking_tools(installer)
    sbom.mkdir(exist_ok=True)

    checks: dict[str, Callable[[], object]] = {
        "twine check --strict": partial(run, [tools / "twine", "check", "--strict", sdist, wheel]),
        "check-wheel-contents": partial(
            run, [tools / "check-wheel-contents", "--config", ROOT / "pyproject.toml", wheel]
        ),
        "the classifiers exist": partial(classifiers_exist, tools, project),
        "each extra has a row in .ci/release/extras.py": partial(same_extras, project),
        "an absent extra is named": partial(extras_absent, installer, wheel),
    }
    pythons = found_pythons(installer)
    for version in PYTHONS:
        if version not in pythons:
            print(f"there is no Python {version} here: nothing is tried with it", flush=True)
    checks |= {
        f"the embedded model answers, Python {version} by {by}": partial(
            embedded_model_answers, installer, wheel, pythons[version], by=by
        )
        for version, by in [(PYTHONS[0], "pip"), *((each, "uv") for each in PYTHONS)]
        if version in pythons
    }
    checks |= {
        f"the extra {name} alone" if name else "the package without an extra": partial(
            tried_and_listed, installer, wheel, extra, tools=tools, sbom=sbom, version=project["version"]
        )
        for name, extra in EXTRAS.items()
    }
    with ThreadPoolExecutor(AT_ONCE) as pool:
        passed = [*pool.map(reported, checks, checks.values())]
    print(
        f"{sum(passed)} of {len(passed)} checks passed; {wheel.name}, {sdist.name} and the bills: {scratch}"
    )
    return 0 if all(passed) else 1


def reported(name: str, check: Callable[[], object]) -> bool:
    """Run a check, and tell at once how it ended."""
    try:
        check()
    except Failed as failed:
        print(f"FAILED  {name}\n{failed}", flush=True)
    except Exception:  # noqa: BLE001 - the other checks are to run, and the exit code tells
        print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)
    else:
        print(f"ok      {name}", flush=True)
        return True
    return False


def checking_tools(installer: Installer) -> Path:
    """Install the group `release` and return the directory of its commands."""
    directory = installer.scratch / "tools"
    command = [
        "sync",
        "--quiet",
        "--locked",
        "--no-default-groups",
        "--group",
        "release",
        "--no-install-project",
    ]
    run([installer.uv, *command, "--project", ROOT], UV_PROJECT_ENVIRONMENT=str(directory))
    return directory / "bin"


def classifiers_exist(tools: Path, project: dict[str, Any]) -> None:
    """Compare the classifiers with those that indexes know."""
    known = run(
        [tools / "python", "-c", "import trove_classifiers; print(*trove_classifiers.classifiers, sep='\\n')"]
    )
    unknown = {*project["classifiers"]} - {*known.splitlines()}
    if unknown:
        raise Failed(f"an index refuses these: {', '.join(sorted(unknown))}")


def same_extras(project: dict[str, Any]) -> None:
    """Compare the extras that are declared with those that are tried."""
    without_row = {*project["optional-dependencies"]} ^ {*EXTRAS} - {""}
    if without_row:
        raise Failed(f"in pyproject.toml or in EXTRAS alone: {', '.join(sorted(without_row))}")


def tried_and_listed(
    installer: Installer, wheel: Path, extra: Extra, *, tools: Path, sbom: Path, version: str
) -> None:
    """Try an extra where nothing else is installed, and write the bill of what it brought."""
    python = environment_of(installer, wheel, extra)
    write_sbom(tools, installer.root, python, sbom / f"ultra-llm-{version}{extra.suffix}.cdx.json")
    commands_help(installer, wheel, extra, python)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Failed, subprocess.SubprocessError) as error:
        sys.exit(str(error))
