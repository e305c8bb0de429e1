"""The files of deploy/ for several processes parse, fit together, and say what the code does."""

from __future__ import annotations

from typing import Any

import pytest
import yaml  # type: ignore[import-untyped] # it comes with schemathesis, and has no types

from helpers.paths import ROOT
from ultra.config.keys import hash_of
from ultra.config.loading import Configuration, load_configuration
from ultra.config.serving import ServeConfig
from ultra.stores.journal_fence import FencedJournal
from ultra.stores.journal_redis import RedisJournal
from ultra.stores.shared_redis import RedisSharedModels

DEPLOY = ROOT / "deploy"


@pytest.fixture
def configuration(monkeypatch: pytest.MonkeyPatch) -> Configuration:
    monkeypatch.setenv("ULTRA_KEY_HASH", hash_of("any"))
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "any-key-will-do")
    return load_configuration(DEPLOY / "ultra.toml")


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8")))


def kubernetes(name: str) -> dict[tuple[str, str], dict[str, Any]]:
    documents = yaml.safe_load_all((DEPLOY / name).read_text("utf-8"))
    return {(each["kind"], each["metadata"]["name"]): each for each in documents}


def hosts(configuration: Configuration) -> dict[str, str]:
    stores = {
        "cache": configuration.cache.store,
        "journal": configuration.journal.store,
        "shared": configuration.shared.store,
        "budgets": configuration.serve.budgets,
    }
    return {name: str(url).removeprefix("redis://").partition(":")[0] for name, url in stores.items()}


def check_redis(arguments: list[str], host: str) -> None:
    """State is on the disk and never evicted; of answers, old ones make room."""
    options = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    assert "--maxmemory" in options
    if host == "redis-state":
        assert options["--appendonly"] == "yes"
        assert options["--maxmemory-policy"] == "noeviction"
    else:
        assert options["--maxmemory-policy"] == "allkeys-lru"


def test_the_configuration_shares_all_that_can_be_shared(configuration: Configuration) -> None:
    assert hosts(configuration) == {
        "cache": "redis-answers",
        "journal": "redis-state",
        "shared": "redis-state",
        "budgets": "redis-state",
    }
    journal = configuration.journal.open()
    assert isinstance(journal, FencedJournal)
    assert isinstance(journal.inner, RedisJournal)
    assert isinstance(configuration.shared.open(), RedisSharedModels)
    assert configuration.serve.keys
    for model in configuration.models.values():
        assert model.limits is not None
        assert model.limits.requests_per_minute is not None


def test_compose_runs_two_replicas_on_the_servers_that_the_configuration_names(
    configuration: Configuration,
) -> None:
    services = compose()["services"]
    ultra = services["ultra"]
    assert ultra["deploy"]["replicas"] >= 2
    assert set(hosts(configuration).values()) == set(ultra["depends_on"])
    for host in ultra["depends_on"]:
        check_redis(services[host]["command"], host)
        assert "ports" not in services[host]  # nobody else may ask
    assert services["redis-state"]["volumes"] == ["state:/data"]
    assert set(compose()["volumes"]) == {"state"}
    assert set(ultra["environment"]) == set(configuration.variables)
    assert float(ultra["stop_grace_period"].removesuffix("s")) > ServeConfig().drain_grace
    assert (DEPLOY / compose()["configs"]["ultra"]["file"]).is_file()


def test_the_load_balancer_of_compose_sends_streams_as_they_come_and_waits_for_the_longest_run() -> None:
    found = compose()
    used = {each["source"] for service in found["services"].values() for each in service.get("configs", ())}
    assert used == set(found["configs"])
    settings = found["configs"]["balancer"]["content"]
    port = found["services"]["ultra"]["command"][-1]
    assert f"server ultra:{port}" in settings
    assert "proxy_buffering off;" in settings
    words = settings.replace(";", " ").split()
    assert float(words[words.index("proxy_read_timeout") + 1].removesuffix("s")) > ServeConfig().timeout


def test_kubernetes_has_the_servers_that_the_configuration_names(configuration: Configuration) -> None:
    found = kubernetes("kubernetes-redis.yaml")
    for host in set(hosts(configuration).values()):
        kind = "StatefulSet" if host == "redis-state" else "Deployment"
        workload, service = found[kind, host], found["Service", host]
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert workload["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]
        [container] = workload["spec"]["template"]["spec"]["containers"]
        check_redis(container["args"], host)
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert workload["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
        assert service["spec"]["ports"][0]["port"] == 6379
    [claim] = found["StatefulSet", "redis-state"]["spec"]["volumeClaimTemplates"]
    [container] = found["StatefulSet", "redis-state"]["spec"]["template"]["spec"]["containers"]
    assert container["volumeMounts"] == [{"name": claim["metadata"]["name"], "mountPath": "/data"}]


def test_kubernetes_scales_the_deployment_of_the_service_and_lets_only_its_pods_ask() -> None:
    found, service = kubernetes("kubernetes-redis.yaml"), kubernetes("kubernetes.yaml")
    scaler = found["HorizontalPodAutoscaler", "ultra"]["spec"]
    target = scaler["scaleTargetRef"]
    assert (target["kind"], target["name"]) in service
    assert scaler["minReplicas"] >= 2
    labels = service["Deployment", "ultra"]["spec"]["template"]["metadata"]["labels"]
    [rule] = found["NetworkPolicy", "redis"]["spec"]["ingress"]
    assert rule["from"][0]["podSelector"]["matchLabels"].items() <= labels.items()
    [expression] = found["NetworkPolicy", "redis"]["spec"]["podSelector"]["matchExpressions"]
    assert set(expression["values"]) == {"redis-state", "redis-answers"}
