"""Events go where the host application has its own."""

from __future__ import annotations

import io
import logging
from contextvars import copy_context
from typing import TYPE_CHECKING, NoReturn

import pytest
import structlog
from structlog.contextvars import bound_contextvars
from structlog.testing import capture_logs

from helpers.scripted_actors import AT_ONCE, ScriptedActor, boom
from ultra import ModelError
from ultra._support.log import LogScope, get_logger, log_scope, scoped_context
from ultra.actors import ActorOptions
from ultra.supervisor import ActorSystem

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

log = get_logger("ultra.test")


def test_without_structlog_events_are_lines_of_the_standard_logger_of_that_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    log.info("model answered", model="llama", seconds=1.5, note="two words", cached=False)
    log.debug("too quiet")
    assert caplog.record_tuples == [
        (
            "ultra.test",
            logging.INFO,
            'event="model answered" model=llama seconds=1.5 note="two words" cached=false',
        )
    ]


def test_a_line_break_in_a_field_does_not_forge_a_line(caplog: pytest.LogCaptureFixture) -> None:
    log.warning("odd", text="one\nlevel=critical event=forged")
    assert "\n" not in caplog.messages[0]


def test_the_standard_handlers_get_the_traceback_itself() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("ultra.test")
    logger.addHandler(handler)
    try:
        error = Exception("never raised")
        try:
            int("boom")
        except ValueError as caught:
            error = caught
            log.exception("while it is handled")
        log.error("later", exc_info=error)
    finally:
        logger.removeHandler(handler)
    assert stream.getvalue().count("Traceback (most recent call last):") == 2
    assert stream.getvalue().count("\nValueError: invalid literal") == 2


def test_each_method_writes_at_the_level_of_its_name(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    for write in (log.debug, log.info, log.warning, log.error, log.critical, log.exception):
        write("an event")
    levels = [record.levelname for record in caplog.records]
    assert levels == ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "ERROR"]


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical"])
def test_what_the_standard_level_suppresses_is_not_enabled(
    level: str, caplog: pytest.LogCaptureFixture
) -> None:
    for threshold in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        caplog.set_level(threshold, logger="ultra.test")
        expected = logging.getLevelNamesMapping()[level.upper()] >= logging.getLevelNamesMapping()[threshold]
        assert log.enabled(level) is expected  # type: ignore[arg-type]


def test_a_host_s_structlog_gets_the_events_with_their_fields() -> None:
    with capture_logs() as events:
        assert log.enabled("debug")
        log.debug("model answered", model="llama")
    [event] = events
    assert event == {
        "event": "model answered",
        "model": "llama",
        "logger": "ultra.test",
        "log_level": "debug",
    }


def test_a_host_may_configure_structlog_after_ultra_has_logged(caplog: pytest.LogCaptureFixture) -> None:
    log.warning("before")
    with capture_logs() as events:
        log.warning("after")
    assert caplog.messages == ["event=before"]
    assert [event["event"] for event in events] == ["after"]


def test_a_broken_processor_of_the_host_breaks_nothing_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_logger: WrappedLogger, _name: str, _event: EventDict) -> NoReturn:
        raise ZeroDivisionError("in a processor")

    structlog.configure(processors=[broken])
    log.info("an event")
    [record] = caplog.records
    assert record.levelname == "ERROR"
    assert "could not log event 'an event'" in record.message
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


class PanicError(BaseException):
    """As pyo3's PanicException is."""


@pytest.mark.parametrize("raised", [PanicError(), SystemExit(3), RuntimeError()])
@pytest.mark.parametrize("where", ["filter", "handler", "processor"])
def test_whatever_code_of_the_host_s_logging_raises_goes_no_further(
    where: str, raised: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NoReturn:
        raise raised

    monkeypatch.setattr(logging, "raiseExceptions", False)
    standard = logging.getLogger("ultra.test.panics")
    monkeypatch.setattr(standard, "propagate", False)
    handler = logging.StreamHandler()
    if where == "filter":
        handler.addFilter(fail)
    elif where == "handler":
        monkeypatch.setattr(handler, "emit", fail)
    monkeypatch.setattr(standard, "handlers", [handler])
    try:
        if where == "processor":
            structlog.configure(processors=[fail])
        get_logger("ultra.test.panics").error("lost")
    finally:
        structlog.reset_defaults()


async def test_a_crash_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, backoff=AT_ONCE, options=ActorOptions(max_deliveries=1))
        ref.tell(boom)
        await ref.ask("next")
    crash, restart = caplog.records
    assert crash.message == 'event="actor crashed" path=/scriptedactor-1 error="ValueError: boom"'
    assert crash.exc_info is not None
    assert isinstance(crash.exc_info[1], ValueError)
    assert restart.message.startswith('event="actor restarting" path=/scriptedactor-1')
    assert (crash.levelname, restart.levelname) == ("ERROR", "WARNING")


async def test_lifecycle_events_reach_a_host_s_structlog() -> None:
    with capture_logs() as events:
        async with ActorSystem() as system:
            await system.spawn(ScriptedActor).ask("started?")
    assert [(event["event"], event["path"], event["log_level"]) for event in events] == [
        ("actor starting", "/", "debug"),
        ("actor started", "/scriptedactor-1", "debug"),
        ("actor stopped", "/scriptedactor-1", "debug"),
    ]


# --- what comes from outside ---------------------------------------------------------------------------

HOSTILE = "a\r\n2026-01-01 CRITICAL forged\x1b[2J\x9b1m\u2028next\u202eright\x85\x07\ud800"
SHOWN = r"a\r\n2026-01-01 CRITICAL forged\x1b[2J\x9b1m\u2028next\u202eright\x85\x07\ud800"


def is_harmless(text: str) -> bool:
    return all(character.isprintable() or character in "\t\n" for character in text)


def test_no_text_in_a_field_ends_a_line_or_steers_a_terminal(caplog: pytest.LogCaptureFixture) -> None:
    log.warning("odd", error=HOSTILE, names=[HOSTILE, {HOSTILE: 1}], other=RuntimeError(HOSTILE))
    [record] = caplog.records
    assert len(record.message.splitlines()) == 1
    assert is_harmless(record.message)
    assert (record.error, record.names) == (SHOWN, [SHOWN, {SHOWN: 1}])  # type: ignore[attr-defined]
    with capture_logs() as events:
        log.warning("odd", error=HOSTILE, names=(HOSTILE,))
    assert (events[0]["error"], events[0]["names"]) == (SHOWN, [SHOWN])


def test_honest_text_stays_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    log.warning("fine", text="Grüße, 世界 \U0001f600", path="C:\\x", tab="a\tb")
    [record] = caplog.records
    assert record.text == "Grüße, 世界 \U0001f600"  # type: ignore[attr-defined]
    assert (record.path, record.tab) == ("C:\\x", "a\tb")  # type: ignore[attr-defined]


def raised(error: Exception, cause: BaseException | None = None) -> Exception:
    try:
        raise error from cause
    except type(error) as caught:
        return caught


class Awkward(Exception):
    def __init_subclass__(cls) -> None:
        raise TypeError("no subclasses")


@pytest.mark.parametrize(
    "error",
    [
        ValueError(HOSTILE),
        KeyError(HOSTILE),
        OSError(5, HOSTILE),
        Awkward(HOSTILE),
        SyntaxError(HOSTILE),
        ModelError(HOSTILE),
        ExceptionGroup(HOSTILE, [ValueError(HOSTILE), raised(KeyError("k"), OSError(HOSTILE))]),
        raised(RuntimeError("honest"), ValueError(HOSTILE)),
    ],
)
@pytest.mark.parametrize("configured", [False, True])
def test_no_traceback_has_a_line_that_could_be_one_of_the_log(
    error: Exception,
    configured: bool,  # noqa: FBT001
) -> None:
    error.add_note(f"a note\n{HOSTILE}")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("ultra.test")
    logger.addHandler(handler)
    if configured:
        render = structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        )
        structlog.configure(processors=[render], logger_factory=structlog.PrintLoggerFactory(stream))
    try:
        log.error("broken", exc_info=raised(error, error.__cause__))
    finally:
        logger.removeHandler(handler)
    text = stream.getvalue()
    assert is_harmless(text)
    assert not any(line.startswith("2026-01-01") for line in text.splitlines())
    assert "forged" in text
    assert type(error).__name__ in text
    assert "in raised" in text


def test_an_exception_without_hostile_text_is_given_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    error = raised(ValueError("honest"), KeyError("k"))
    log.error("broken", exc_info=error)
    hostile = raised(ZeroDivisionError(HOSTILE))
    log.error("broken", exc_info=hostile)
    first, second = caplog.records
    assert first.exc_info is not None
    assert first.exc_info[1] is error
    assert second.exc_info is not None
    assert isinstance(second.exc_info[1], ZeroDivisionError)
    assert second.exc_info[2] is hostile.__traceback__


# --- names and owners ----------------------------------------------------------------------------------


def test_the_name_of_the_logger_survives_a_print_logger() -> None:
    stream = io.StringIO()
    structlog.configure(
        processors=[structlog.processors.JSONRenderer(sort_keys=True)],
        logger_factory=structlog.PrintLoggerFactory(stream),
    )
    log.info("an event", number=1)
    assert stream.getvalue() == '{"event": "an event", "logger": "ultra.test", "number": 1}\n'


def test_the_fields_are_attributes_of_the_record(caplog: pytest.LogCaptureFixture) -> None:
    log.warning("an event", model="llama", attempt=2, name="taken", process=3)
    [record] = caplog.records
    assert (record.model, record.attempt, record.event) == ("llama", 2, "an event")  # type: ignore[attr-defined]
    assert (record.name, record.name_, record.process_) == ("ultra.test", "taken", 3)  # type: ignore[attr-defined]


def test_a_line_has_its_scope_and_what_the_caller_has_bound(caplog: pytest.LogCaptureFixture) -> None:
    with bound_contextvars(tenant="blue", **{"odd name": 1, "event": "not this"}):
        caller = copy_context()
    with log_scope(LogScope({"run_id": "r", "model": "m"}, caller)), bound_contextvars(own="no"):
        log.warning("inside", model="other")
        inner = scoped_context(caller, {"run_id": "s"})
    log.warning("outside")
    inner.run(log.warning, "elsewhere")
    assert caplog.messages == [
        "event=inside odd_name=1 tenant=blue run_id=r model=other",
        "event=outside",
        "event=elsewhere odd_name=1 tenant=blue run_id=s",
    ]


def test_the_lines_of_an_ownerless_logger_have_nobody_s_fields(caplog: pytest.LogCaptureFixture) -> None:
    with log_scope(LogScope({"run_id": "r"}, copy_context())), bound_contextvars(tenant="blue"):
        get_logger("ultra.test", ownerless=True).warning("restarted", path="/a")
    assert caplog.messages == ["event=restarted path=/a"]
