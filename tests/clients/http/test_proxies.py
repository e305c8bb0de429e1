"""Which requests go through the proxy of the environment."""

from __future__ import annotations

import pytest

from ultra.clients.http.proxies import proxy_for

PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    "url",
    [
        *("http://localhost:11434", "http://127.0.0.1:8000/v1", "http://127.1.2.3", "http://[::1]:8080"),
        *("http://ollama.localhost", "http://[::ffff:127.0.0.1]/v1"),
    ],
)
def test_this_machine_is_never_asked_through_a_proxy(url: str) -> None:
    assert proxy_for(url, {"http": PROXY, "all": PROXY}) is None


@pytest.mark.parametrize(
    ("no", "url", "direct"),
    [
        ("*", "https://a.example/v1", True),
        ("example.com", "https://example.com", True),
        ("example.com", "https://a.example.com", True),
        ("example.com", "https://notexample.com", False),
        (".example.com", "https://a.example.com", True),
        ("*.example.com", "https://a.example.com", True),
        ("Example.COM", "https://EXAMPLE.com", True),
        ("example.com:8443", "https://example.com:8443", True),
        ("example.com:8443", "https://example.com", False),
        ("example.com:443", "https://example.com", True),
        ("https://example.com", "https://example.com", True),
        ("10.0.0.0/8", "http://10.1.2.3", True),
        ("10.0.0.0/8", "http://11.1.2.3", False),
        ("10.1.2.3", "http://10.1.2.3:8000", True),
        ("::1/128,fd07:b51a:cc66:f0::/64", "http://[fd07:b51a:cc66:f0::5]:8000", True),
        ("fd07:b51a:cc66:f0::/64", "http://[fd07:b51a:cc66:f1::5]", False),
        ("[fd07::1]", "http://[fd07::1]", True),
        ("[fd07::1]:9", "http://[fd07::1]", False),
        ("fd07::1", "http://[fd07::1]", True),
        ("localhost,[::1],nonsense/abc,10.0.0.0/99,:::,/", "https://a.example", False),
        ("nonsense, 10.0.0.0/8 a.example", "https://a.example", True),
    ],
)
def test_no_proxy_names_hosts_addresses_and_networks(no: str, url: str, *, direct: bool) -> None:
    found = proxy_for(url, {"http": PROXY, "https": PROXY, "no": no})
    assert found == (None if direct else PROXY)


def test_the_proxy_is_that_of_the_scheme_and_may_lack_its_own() -> None:
    assert proxy_for("https://a.example", {"http": PROXY}) is None
    assert proxy_for("https://a.example", {"http": PROXY, "all": "proxy:1"}) == "http://proxy:1"


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", PROXY)
    monkeypatch.setenv("no_proxy", "10.0.0.0/8,::1/128")
    assert proxy_for("https://a.example") == PROXY
    assert proxy_for("https://10.0.0.1") is None
