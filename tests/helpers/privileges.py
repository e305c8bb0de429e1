"""Files that may not be written, also where the tests run as root, whom no permission stops."""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.command_line import environment, warm_python

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

__all__ = ["give_up_overriding", "read_only", "run_script_within_permissions", "run_ultra_within_permissions"]

_VERSION = 0x20080522
_OVERRIDES = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""

_BEGIN = "from helpers.privileges import give_up_overriding\ngive_up_overriding()\n"


def give_up_overriding() -> None:
    """Let permissions of files count for this process from now on, if it is root's. Linux only."""
    if os.geteuid():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    head = ctypes.create_string_buffer(struct.pack("Ii", _VERSION, 0))
    sets = ctypes.create_string_buffer(24)
    assert libc.capget(head, sets) == 0
    left = [each & ~_OVERRIDES for each in struct.unpack("6I", sets.raw)]
    head = ctypes.create_string_buffer(struct.pack("Ii", _VERSION, 0))
    if libc.capset(head, ctypes.create_string_buffer(struct.pack("6I", *left), 24)):
        raise OSError(ctypes.get_errno(), "the capabilities cannot be given up")


async def run_script_within_permissions(
    source: str, *arguments: object
) -> subprocess.CompletedProcess[bytes]:
    """Run a program, for which permissions of files count, to its end. `arguments` are its `GIVEN`."""
    tests = Path(__file__).parents[1]
    variables = environment({"PYTHONPATH": str(tests)})
    given = f"GIVEN = {list(map(str, arguments))!r}\n"
    return await warm_python().run_script(tests / "program.py", f"{_BEGIN}{given}{source}", variables)


async def run_ultra_within_permissions(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run `ultra`, for which permissions of files count, to its end."""
    source = "import sys\nfrom ultra.cli import main\nsys.argv = ['ultra', *GIVEN]\nsys.exit(main())\n"
    return await run_script_within_permissions(source, *arguments)


@contextmanager
def read_only(*paths: Path) -> Iterator[None]:
    """Let nobody write these files and folders in the block."""
    modes = {path: path.stat().st_mode for path in paths}
    try:
        for path in paths:
            path.chmod(modes[path] & ~0o222)
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
