"""What shells and other programs start in place of `ultra`, or of `python`, and that asks for a fork instead.

It imports next to nothing, so it costs the ten milliseconds that any Python costs. `WarmPython` writes its
text into a file, with a call of `main` below. Signals are passed on to the program, and its end is that of
this process. What the fork cannot do, such as options of Python, is left to Python.
"""

import _signal  # type: ignore[import-not-found] # it has no stub
import _socket
import marshal
import os
import sys

PASSED_ON = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGUSR1)

LATER = ("PYTHONPATH", "PYTHON_KEYRING_BACKEND", "PYTHONUNBUFFERED")


def main(address: str, python: str, variables: dict[str, str]) -> None:
    """Run the program that this process was started as; does not return.

    Args:
        address: where the Python that forks listens.
        python: the real one.
        variables: those that the first was started with, of those that Python reads when it starts.
    """
    name, *arguments = sys.argv
    found = understood(name.rpartition("/")[2], arguments)
    started_with = {key: os.environ[key] for key in os.environ if key[:6] == "PYTHON" and key not in LATER}
    if found is None or started_with != variables or not has_streams():
        command = ["-m", "ultra"] if name.endswith("/ultra") else []
        os.execv(python, [python, *command, *arguments])
    code = forked(address, found)
    if code < 0:  # a signal has ended it
        if -code in PASSED_ON:
            _signal.signal(-code, _signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def forked(address: str, found: tuple[list[str], str | None]) -> int:
    """Have the program run by a fork, pass signals on to it, and return how it ended."""
    early: list[int] = []
    program = 0

    def pass_on(number: int, frame: object) -> None:
        if not program:
            early.append(number)
            return
        try:  # noqa: SIM105 - see above: nothing is imported
            os.kill(program, number)
        except ProcessLookupError:
            pass  # it has ended

    for number in PASSED_ON:
        _signal.signal(number, pass_on)
    told = marshal.dumps((*found, dict(os.environ), os.getcwd(), False, None))  # noqa: PTH109 - as above
    report = _socket.socket(_socket.AF_UNIX)
    report.connect(address)
    streams = b"".join(number.to_bytes(4, sys.byteorder) for number in range(3))
    report.sendmsg([len(told).to_bytes(4, "big")], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)])
    report.sendall(told)
    for number in range(3):  # who reads what the program writes learns of its end by that of the program
        os.close(number)
    line = b""
    while not line.endswith(b"\n"):
        line += report.recv(1)
    program = int(line)
    while early:
        pass_on(early.pop(0), None)
    return int(report.recv(9))


def understood(name: str, arguments: list[str]) -> tuple[list[str], str | None] | None:
    """Return the command and the text of a script, if there is one; None: it is left to Python."""
    if name == "ultra":
        return ["ultra", *arguments], None
    match arguments:
        case ["-m", "ultra", *rest]:
            return ["ultra", *rest], None
        case ["-c", source, *rest]:
            return ["-c", *rest], source
        case [path, *_] if path[0] != "-":
            with open(path, encoding="utf-8") as file:  # noqa: PTH123 - see above
                return arguments, file.read()
    return None


def has_streams() -> bool:
    try:
        return all(os.fstat(number) for number in range(3))
    except OSError:
        return False
