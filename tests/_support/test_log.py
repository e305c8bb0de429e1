"""Events go where the host application has its own."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING, NoReturn

import pytest
import structlog
from structlog.testing import capture_logs

from helpers.scripted_actors import AT_ONCE, ScriptedActor, boom
from ultra._support.log import get_logger
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
    assert events == [{"event": "model answered", "model": "llama", "log_level": "debug"}]


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
