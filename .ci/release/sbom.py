"""A bill of materials: what an environment has installed for Ultra, as CycloneDX."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from environments import Failed, run

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["write_sbom"]

SPECIFICATION: Final = "1.6"
VENDORED: Final = "src/ultra/service/page/static/vendor/LICENSES.txt"
_LICENCES: Final = {"marked": "MIT AND BSD-3-Clause", "dompurify": "Apache-2.0 OR MPL-2.0"}
_VALIDATE: Final = f"""
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V{SPECIFICATION.replace(".", "_")}).validate_str(sys.stdin.read())
sys.exit(str(error) if error else 0)
"""


def write_sbom(tools: Path, root: Path, python: Path, file: Path) -> None:
    """List what the environment of `python` has, and what the wheel brings for the page, in `file`.

    Raises:
        Failed: something in it has no version or no licence, or is missing; the list names a path of this
            machine; or it is not valid.
    """
    bill = _bill_of_environment(tools, root, python)
    _add_vendored(bill, (root / VENDORED).read_text("utf-8"))
    components = bill["components"]
    wanted = ("version", "licenses", "purl")
    incomplete = [each["name"] for each in components if not all(map(each.get, wanted))]
    if incomplete:
        raise Failed(f"no version, licence or address: {', '.join(incomplete)}")
    missing = _licences(python).keys() - {_normal(each["name"]) for each in components} - {"ultra-llm"}
    if missing:
        raise Failed(f"not in the bill: {', '.join(sorted(missing))}")
    text = json.dumps(bill, indent=2, sort_keys=True) + "\n"
    if "file:" in text or str(python.parent) in text:
        raise Failed("the bill names a path of this machine")
    run([tools / "python", "-c", _VALIDATE], stdin=text)
    file.write_text(text, encoding="utf-8")


def _bill_of_environment(tools: Path, root: Path, python: Path) -> dict[str, Any]:
    command: list[str | Path] = [
        tools / "cyclonedx-py",
        "environment",
        "--output-reproducible",
        "--no-validate",
        python,
    ]
    subject: list[str | Path] = [
        "--pyproject",
        root / "pyproject.toml",
        "--mc-type",
        "library",
        "--sv",
        SPECIFICATION,
    ]
    bill: dict[str, Any] = json.loads(run([*command, *subject]))
    in_words = _licences(python)
    for component in bill["components"]:
        named = in_words.get(_normal(component["name"]))
        if named and not component.get("licenses"):
            component["licenses"] = [{"license": {"acknowledgement": "declared", "name": named}}]
    return bill


def _licences(python: Path) -> dict[str, str]:
    """All that is installed, by name, with the licence as older metadata have it: in words of their own."""
    code = (
        "import importlib.metadata as m, json\n"
        "print(json.dumps([(each.name, each.metadata.get('License')) for each in m.distributions()]))"
    )
    found = json.loads(run([python, "-c", code]))
    return {_normal(name): (licence or "").partition("\n")[0] for name, licence in found}


def _add_vendored(bill: dict[str, Any], licences: str) -> None:
    """Add what the wheel has of other projects: the scripts of the page."""
    found = re.findall(r"^\w+\.js is (\w+) ([\d.]+) \(", licences, re.MULTILINE)
    versions = {name.lower(): version for name, version in found}
    if versions.keys() != _LICENCES.keys():
        raise Failed(f"{VENDORED} tells of {', '.join(versions)}, and _LICENCES of {', '.join(_LICENCES)}")
    added = [
        {
            "bom-ref": f"{name}@{version}",
            "licenses": [{"expression": _LICENCES[name]}],
            "name": name,
            "purl": f"pkg:npm/{name}@{version}",
            "type": "library",
            "version": version,
        }
        for name, version in versions.items()
    ]
    bill["components"] += added
    whole = bill["metadata"]["component"]["bom-ref"]
    needs = next(each for each in bill["dependencies"] if each["ref"] == whole)
    needs["dependsOn"] = [*needs.get("dependsOn", []), *(each["bom-ref"] for each in added)]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
