"""What stands in for `ultra` and Python in tests is to those who start it what these are."""

from __future__ import annotations

import os
import select
import signal
import subprocess

import pytest

from helpers.command_line import PATIENCE, environment, programs

WAITING = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"


def run(name: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [programs() / name, *arguments],
        env=environment(),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def waiting() -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [programs() / "python", "-c", WAITING],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_the_command_has_its_arguments_its_output_and_its_exit_code() -> None:
    assert run("ultra", "--version").stdout.startswith("ultra ")
    assert run("python", "-m", "ultra", "--version").stdout.startswith("ultra ")
    assert run("ultra", "--typo").returncode == 2


def test_a_program_has_its_arguments_its_input_and_its_exit_code() -> None:
    done = run("python", "-c", "import sys; print(sys.argv, input()); sys.exit(3)", "a", "b", stdin="line\n")

    assert (done.returncode, done.stdout, done.stderr) == (3, "['-c', 'a', 'b'] line\n", "")


def test_an_error_is_told_as_python_tells_it() -> None:
    done = run("python", "-c", "raise ValueError('wrong')")

    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: wrong\n")


def test_what_a_fork_cannot_do_is_left_to_python() -> None:
    assert run("python", "-X", "dev", "-c", "import sys; print(sys.flags.dev_mode)").stdout == "True\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_that_ends_the_program_ends_what_stands_in_for_it(number: signal.Signals) -> None:
    process, program = waiting()
    os.kill(program, number)
    process.communicate(timeout=PATIENCE)

    assert process.returncode == -number


def test_signals_are_passed_on() -> None:
    process, _ = waiting()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)

    assert process.returncode == -signal.SIGINT
    assert errors.endswith("KeyboardInterrupt\n")


def test_where_who_started_it_is_killed_the_program_ends_too() -> None:
    process, program = waiting()
    watched = os.pidfd_open(program)
    process.kill()
    process.communicate(timeout=PATIENCE)

    assert select.select([watched], [], [], PATIENCE)[0]
    os.close(watched)
