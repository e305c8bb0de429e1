"""``python -m benchmarks NAME [--json FILE] [--brief]``."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
from importlib import import_module
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from benchmarks.harness import Row, table

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # nothing here talks to the world

BENCHMARKS: Final = {
    "ask": "benchmarks.ask:one_caller",
    "ask-100": "benchmarks.ask:many_callers",
    "tell": "benchmarks.runtime:tell",
    "idle": "benchmarks.runtime:idle_actors",
    "restart": "benchmarks.runtime:crash_to_next_message",
    "run": "benchmarks.runs:full_run",
    "runs-200": "benchmarks.runs:runs_at_once",
    "cached": "benchmarks.runs:cached_run",
    "journal": "benchmarks.journal:journaled_runs",
    "redis": "benchmarks.redis:redis_stores",
    "asyncio": "benchmarks.host:asyncio_run",
    "hop": "benchmarks.host:hop",
    "stalls": "benchmarks.host:stalls",
    "stream": "benchmarks.streaming:tokens",
    "chunk": "benchmarks.streaming:chunk_latency",
    "http": "benchmarks.http:calls",
    "http-cost": "benchmarks.http_cost:processor_time",
    "streams-500": "benchmarks.http:streams",
    "service": "benchmarks.service:passthrough",
    "service-run": "benchmarks.service:run_of_three",
    "service-idle": "benchmarks.service:idle_streams",
    "service-token": "benchmarks.service:streamed_tokens",
    "import": "benchmarks.imports:import_time",
}
"""Each benchmark by its name, as ``module:function``; imported when it runs, since peers import slowly."""


def main() -> None:
    """Run what was asked for, print a table, write the rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=[*BENCHMARKS, "all"])
    parser.add_argument("--json", type=Path, help="write a row for each comparison to this file")
    parser.add_argument("--brief", action="store_true", help="once and small: proves that it runs, no more")
    arguments = parser.parse_args()
    if arguments.json is not None and (arguments.json.is_dir() or not arguments.json.parent.is_dir()):
        parser.error(f"--json {arguments.json}: give a file in a folder that exists")
    logging.disable(logging.CRITICAL)
    rows: list[Row] = []
    brief = arguments.brief
    for name in BENCHMARKS if arguments.name == "all" else [arguments.name]:
        module, _, function = BENCHMARKS[name].partition(":")
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            measured: list[Row] = getattr(import_module(module), function)(brief=brief)
        except ModuleNotFoundError as error:
            parser.error(
                f"{error.name} is not installed; the peers come with the dependency group bench: "
                "uv run --no-default-groups --group bench --extra cli --extra serve python -m benchmarks"
            )
        rows += [replace(row, name=name, brief=brief) for row in measured]
        if arguments.json is not None:  # whatever comes later, this is not lost
            arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(rows)))
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}\n")
    print(table(rows))


if __name__ == "__main__":
    main()
