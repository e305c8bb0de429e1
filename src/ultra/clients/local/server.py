"""The program of the process that runs the embedded model; started by `ultra.clients.local.embedded`.

It reads one line of JSON from standard input, starts llama.cpp's server on a free loopback port,
answers with one line of JSON on standard output, and ends when standard input does: so it never
outlives the program that started it, however that ends.

It runs as a file, by its path, and imports nothing of Ultra.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that started this one
    answer = os.fdopen(os.dup(1), "w")
    silence()
    settings = json.loads(sys.stdin.buffer.readline())
    try:
        server = start(settings)
    except Exception as error:  # noqa: BLE001 - whatever it is, it goes to the parent in words
        answer.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")
        answer.flush()
        return
    answer.write(json.dumps({"url": server.listening_address}) + "\n")
    answer.flush()
    sys.stdin.buffer.read()
    os._exit(0)  # there is nothing to save, and unloading the model takes a moment


def silence() -> None:
    """Send what llama.cpp prints, past Python, nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def start(settings: dict[str, Any]) -> Any:  # noqa: ANN401 - xllamacpp has no types
    """Load the model and start the server; it serves from threads of its own."""
    sys.path.insert(0, settings["packages"])
    xllamacpp = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.model_alias = [Path(settings["model"]).stem]  # in answers, in place of the whole path
    params.api_keys = [settings["api_key"]]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["slots"] * settings["context_window"]
    params.sleep_idle_seconds = settings["sleep_after"]
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    # Waiting threads sleep: a thread that spins takes the core from the thread that it waits for.
    params.cpuparams.poll = params.cpuparams_batch.poll = 0
    params.verbosity = -1
    # What a small model on a CPU gains nothing from, but waits or pays memory for.
    params.warmup = False
    params.fit_params = False
    params.cache_ram_mib = 0
    params.n_ctx_checkpoints = 0
    params.ui = False
    params.endpoint_slots = False
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
