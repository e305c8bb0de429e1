"""The files of deploy/ parse, and say what the code does. `deploy/check` tries them further."""

from __future__ import annotations

import json
import re
import shlex
from configparser import RawConfigParser
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped] # it comes with schemathesis, and has no types
from typer.testing import CliRunner

import ultra
from helpers.paths import ROOT
from ultra.cli.app import app
from ultra.config.serving import ServeConfig
from ultra.service.metrics import SERVICE_METRIC_NAMES
from ultra.service.routes import _ROUTES
from ultra.telemetry.prometheus import METRIC_NAMES

DEPLOY = ROOT / "deploy"
GRACE = ServeConfig().drain_grace
SERVED = set(_ROUTES)


def options_of(help_text: str) -> set[str]:
    return set(re.findall(r"--[a-z-]+", help_text))


@pytest.fixture(scope="module")
def serve_options() -> set[str]:
    result = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == 0
    return options_of(result.output)


def kubernetes() -> dict[str, Any]:
    found = {
        each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text("utf-8"))
    }
    assert found.keys() == {"Deployment", "Service", "PodDisruptionBudget"}
    return found


def dockerfile() -> list[list[str]]:
    joined = (DEPLOY / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    return [line.split(None, 1) for line in joined.splitlines() if line and not line.startswith("#")]


def unit() -> dict[str, list[tuple[str, str]]]:
    # A name may stand twice in a unit, so the parser is only asked whether it reads it.
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string((DEPLOY / "ultra.service").read_text("utf-8"))
    return {section: parser.items(section) for section in parser.sections()}


def test_kubernetes_starts_this_version() -> None:
    (container,) = kubernetes()["Deployment"]["spec"]["template"]["spec"]["containers"]

    assert container["image"] == f"ultra:{ultra.__version__}"


def test_kubernetes_gives_a_pod_more_time_than_it_drains() -> None:
    pod = kubernetes()["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    slept = re.search(r"sleep\((\d+)\)", " ".join(container["lifecycle"]["preStop"]["exec"]["command"]))
    assert slept is not None
    assert pod["terminationGracePeriodSeconds"] > GRACE + int(slept[1])


def test_kubernetes_asks_addresses_that_exist_on_the_port_that_is_served() -> None:
    found = kubernetes()
    [container] = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] in SERVED
        assert container[probe]["httpGet"]["port"] == "http"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    [port] = container["ports"]
    assert str(port["containerPort"]) == container["args"][container["args"].index("--port") + 1]
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for selector in (
        found["Service"]["spec"]["selector"],
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()


def test_kubernetes_gives_the_pod_no_rights() -> None:
    pod = kubernetes()["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    security = container["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"]["drop"] == ["ALL"]
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    assert "memory" in container["resources"]["limits"]
    mounted = {each["name"] for each in container["volumeMounts"]}
    assert mounted == {each["name"] for each in pod["volumes"]}


def test_the_image_runs_as_a_user_of_its_own_and_is_asked_for_its_health(serve_options: set[str]) -> None:
    lines = dockerfile()
    by_name = dict(lines)
    user = by_name["USER"].split(":")[0]
    assert user not in {"root", "0"}
    pod = kubernetes()["Deployment"]["spec"]["template"]["spec"]
    assert int(user) == pod["securityContext"]["runAsUser"]
    assert "/healthz" in by_name["HEALTHCHECK"]
    entry, arguments = json.loads(by_name["ENTRYPOINT"]), json.loads(by_name["CMD"])
    assert entry[:2] == ["ultra", "serve"]
    assert {part for part in [*entry, *arguments] if part.startswith("--")} <= serve_options
    assert by_name["EXPOSE"] == arguments[arguments.index("--port") + 1]
    assert all("slim" in rest for name, rest in lines if name == "FROM")
    for name, rest in lines:
        if name == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists()


def test_the_build_of_the_image_is_given_what_it_copies() -> None:
    given = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    copied = [rest.split()[:-1] for name, rest in dockerfile() if name == "COPY" and "--from" not in rest]

    assert {f"!{source}" for sources in copied for source in sources} <= set(given)


def test_the_unit_gives_more_time_than_it_drains_and_is_hardened(serve_options: set[str]) -> None:
    found = unit()
    service = dict(found["Service"])
    assert {"Unit", "Service", "Install"} == found.keys()
    assert float(service["TimeoutStopSec"]) > GRACE
    assert service["Type"] == "exec"  # notify would need a message that ultra serve does not send
    command = shlex.split(service["ExecStart"])
    assert command[1] == "serve"
    assert {part for part in command if part.startswith("--")} <= serve_options
    hardened = {"NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices", "DynamicUser"}
    assert all(service[name] == "yes" for name in hardened)
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""


def test_every_query_of_the_dashboard_names_metrics_that_exist() -> None:
    dashboard = json.loads((DEPLOY / "grafana.json").read_text("utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    known = METRIC_NAMES | SERVICE_METRIC_NAMES | {"process_resident_memory_bytes"}
    used: set[str] = set()
    for expression in expressions:
        names = set(re.findall(r"\b(?:ultra|process)_[a-z_]+", expression))
        assert names
        used |= {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
    assert used <= known
    assert len(used) > 15


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    panels = json.loads((DEPLOY / "grafana.json").read_text("utf-8"))["panels"]
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels) == len({panel["id"] for panel in panels})
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)
