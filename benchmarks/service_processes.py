"""Proxies of models as processes, `ultra serve` and LiteLLM's: what they take, and how they are asked."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import httpx
import msgspec
import trio

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Connection", "Proxy", "litellm_installed", "litellm_proxy", "processor_seconds", "ultra_service"]

_PATIENCE: Final = 120.0
_ENVIRONMENT: Final = {
    "NO_PROXY": "127.0.0.1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # as ours: it listens on loopback alone
}


class Proxy:
    """A proxy that answers. `booted`: seconds from its start to its first answer."""

    def __init__(self, process: subprocess.Popen[str], port: int, booted: float) -> None:
        self.process = process
        self.port = port
        self.booted = booted

    @property
    def processor_time(self) -> float:
        """Processor seconds that it has taken so far, with its children."""
        return sum(_times(each) for each in _family(self.process.pid))

    @property
    def memory(self) -> int:
        """Bytes of memory that it takes now."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text("utf-8").splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmRSS")))


def _family(pid: int) -> list[int]:
    found = [pid]
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in thread.read_text("ascii").split():
            found += _family(int(child))
    return found


def _times(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def processor_seconds() -> float:
    """Processor seconds of this process so far."""
    return time.process_time()


@contextmanager
def ultra_service(upstream: str, *, answers: bool = True) -> Iterator[Proxy]:
    """Run `ultra serve` with three models at `upstream`, and an ensemble of them, `council`.

    `answers`: whether the upstream does, so that it can be waited for.
    """
    models = "".join(
        f'[models.{name}]\nmodel = "openai:bench"\nbase_url = "{upstream}"\napi_key = "none"\n'
        "limits = { concurrency = 2000 }\n"
        for name in ("one", "two", "three")
    )
    council = '[ensembles.council]\nmodels = ["one", "two", "three"]\n'
    with TemporaryDirectory() as folder:
        file = Path(folder, "ultra.toml")
        file.write_text(models + council, "utf-8")
        port = _free_port()
        command = [sys.executable, "-m", "ultra", "serve", "--config", str(file), "--port", str(port)]
        with _running(command, port, "one" if answers else None) as proxy:
            yield proxy


@contextmanager
def litellm_installed() -> Iterator[Path]:
    """Install LiteLLM's proxy apart from all else, no newer than the version here; yield its command."""
    with TemporaryDirectory() as folder:
        uv = os.environ.get("UV", "uv")
        environment = Path(folder, "litellm")
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, environment], cwd=folder, check=True)
        python = environment / "bin" / "python"
        wanted = f"litellm[proxy]<={version('litellm')}"
        subprocess.run([uv, "pip", "install", "-q", "--python", python, wanted], cwd=folder, check=True)
        yield environment / "bin" / "litellm"


@contextmanager
def litellm_proxy(command: Path, upstream: str) -> Iterator[Proxy]:
    """Run LiteLLM's proxy with one worker, and the model `one` at `upstream`."""
    parameters = {"model": "openai/bench", "api_base": upstream, "api_key": "none"}
    config = {"model_list": [{"model_name": "one", "litellm_params": parameters}]}
    with TemporaryDirectory() as folder:
        file = Path(folder, "config.yaml")
        file.write_bytes(msgspec.json.encode(config))  # JSON is YAML
        port = _free_port()
        options = ["--config", str(file), "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
        with _running([command, *options], port, "one") as proxy:
            yield proxy


@contextmanager
def _running(command: Sequence[str | Path], port: int, model: str | None) -> Iterator[Proxy]:
    environment = os.environ | _ENVIRONMENT
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    with process:
        try:
            _wait_for_an_answer(process, port, model)
            yield Proxy(process, port, time.perf_counter() - start)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for_an_answer(process: subprocess.Popen[str], port: int, model: str | None) -> None:
    url = f"http://127.0.0.1:{port}"
    body = {"model": model, "messages": [{"role": "user", "content": "Are you there?"}]}
    end = time.monotonic() + _PATIENCE
    with httpx.Client(trust_env=False, timeout=_PATIENCE) as client:
        while time.monotonic() < end:
            if process.poll() is not None:
                raise RuntimeError(f"{process.args!r} has ended with {process.returncode}")
            try:
                if model is None:
                    answer = client.get(f"{url}/v1/models")
                else:
                    answer = client.post(f"{url}/v1/chat/completions", json=body)
            except httpx.TransportError:
                time.sleep(0.01)
                continue
            if answer.is_success:
                return
            raise RuntimeError(f"{process.args!r} has answered {answer.status_code}: {answer.text[:500]}")
    raise RuntimeError(f"{process.args!r} did not answer within {_PATIENCE:g} s")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


class Connection:
    """A connection to a proxy that takes as little of the machine as may be: it looks for the end alone."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    @classmethod
    async def to(cls, port: int) -> Connection:
        """Open one."""
        return cls(await trio.open_tcp_stream("127.0.0.1", port))

    async def send(self, model: str, question: str, *, stream: bool = False) -> None:
        """Ask."""
        body = msgspec.json.encode(
            {"model": model, "messages": [{"role": "user", "content": question}], "stream": stream}
        )
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer none\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        await self._stream.send_all(head.encode() + body)

    async def ask(self, model: str, question: str) -> None:
        """Ask, and read the whole answer."""
        await self.send(model, question)
        data = b""
        while b"\r\n\r\n" not in data:
            data += await self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"it has answered {data[:500]!r}")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += await self._more()

    async def read_until(self, end: bytes) -> int:
        """Read a stream until it has said `end`; return how many events came."""
        events, last = 0, b""
        while end not in last:
            piece = await self._more()
            events += piece.count(b"data: ")
            last = last[-len(end) :] + piece
        return events

    async def _more(self) -> bytes:
        data = bytes(await self._stream.receive_some())
        if not data:
            raise RuntimeError("the proxy has closed the connection")
        return data

    async def aclose(self) -> None:
        """Close it."""
        await self._stream.aclose()
