"""The web page in a real browser: Chromium, if it is installed.

A scenario takes a browser two seconds of a core, so those that look closer at one feature are long ones.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trio

from helpers.panel_members import member, preferring
from helpers.services import service_of, serving
from ultra import ModelError
from ultra.clients import ModelInfo
from ultra.clients.pricing import Price
from ultra.config.keys import KeyConfig, hash_of, new_key
from ultra.config.serving import ServeConfig
from ultra.testing import FakeAnswer, FakeModel

playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

HOSTILE = (
    "## Blue\n\nIt is **blue**. <script>document.title = 'taken'</script>"
    "<img src=x onerror=\"document.title='taken'\">\n\n[a](javascript:document.title='taken') "
    "![b](/healthz) [c](https://example.org)\n\nThe answer is blue."
)


class Browser:
    """One browser for all tests, in a thread of its own; each test has a profile of its own in it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._thread.submit(self._start).result()

    def _start(self) -> None:
        self._tool = playwright.sync_playwright().start()
        self._browser = self._tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

    def _stop(self) -> None:
        self._browser.close()
        self._tool.stop()

    def close(self) -> None:
        self._thread.submit(self._stop).result()
        self._thread.shutdown()

    async def act(self, url: str, act: Callable[[Any], None], **given: Any) -> list[str]:
        """Run the scenario in the thread of the browser."""
        running = self._thread.submit(self._scenario, url, act, **given)
        return await trio.to_thread.run_sync(running.result)

    def _scenario(self, url: str, act: Callable[[Any], None], *, key: str = "", **context: Any) -> list[str]:
        """Act on the page, with a key if the service wants one; return what its console said."""
        with self._browser.new_context(**context) as profile:
            page = profile.new_page()
            page.set_default_timeout(20_000)
            said: list[str] = []
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.goto(url)
            if key:
                page.fill("#key", key)
                page.click("text=Use this key")
            page.wait_for_selector("#target option", state="attached")
            act(page)
            return said


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    browser = Browser()
    yield browser
    browser.close()


async def in_browser(
    browser: Browser, models: dict[str, object], act: Callable[[Any], None], **context: Any
) -> list[str]:
    service = service_of(models)
    async with serving(service) as url:
        return await browser.act(url, act, **context)


def panel() -> dict[str, object]:
    return {
        "a": FakeModel(HOSTILE),
        "b": FakeModel("It is blue. The answer is blue."),
        "c": FakeModel(failures=[ModelError("busy", kind="overloaded")] * 9),
    }


def ask(page: Any, text: str = "Which colour?") -> None:
    page.fill("#question", text)
    page.press("#question", "Control+Enter")


async def test_a_question_is_answered_and_what_models_wrote_is_never_code(browser: Browser) -> None:
    def act(page: Any) -> None:
        ask(page)
        page.wait_for_selector(".figures")
        answer = page.locator(".answer .text")
        assert "It is blue." in answer.inner_text()
        assert answer.locator("strong").first.inner_text() == "Blue"
        assert page.title() == "Ultra"
        assert page.locator(".text img, .text script").count() == 0
        assert [link.get_attribute("href") for link in answer.locator("a").all()] == [
            None,
            "https://example.org",
        ]
        assert "failed (overloaded)" in page.locator(".card.failed .state").inner_text()
        assert "degraded" in page.locator(".figures").inner_text()
        page.wait_for_selector("table.matrix")
        assert "100 %" in page.locator("table.matrix").inner_text()
        report = axe.Axe().run(page)
        assert report.violations_count == 0, report.generate_report()

    assert await in_browser(browser, panel(), act) == []


@pytest.mark.long
async def test_what_models_think_is_folded_above_what_they_write(browser: Browser) -> None:
    thinker = FakeModel(lambda _: FakeAnswer("It is blue.", reasoning="Sky, <b>so</b> blue."))

    def act(page: Any) -> None:
        ask(page)
        page.wait_for_selector(".figures")
        for thoughts in (page.locator(".card .thoughts").first, page.locator(".answer .thoughts")):
            assert not thoughts.locator(".thought").is_visible()
            thoughts.locator("summary").click()
            assert thoughts.locator(".thought").inner_text() == "Sky, <b>so</b> blue."
        assert page.locator(".answer .text").inner_text() == "It is blue."
        assert page.locator(".thoughts:not([hidden])").count() == 2
        page.check("#reasoning")
        ask(page)
        page.wait_for_selector(".turn:nth-of-type(2) .figures")
        for thought in page.locator(".turn:nth-of-type(2) .thoughts:not([hidden]) .thought").all():
            assert thought.is_visible()
        report = axe.Axe().run(page)
        assert report.violations_count == 0, report.generate_report()

    assert await in_browser(browser, {"a": thinker, "b": FakeModel("It is blue.")}, act) == []
    asked = [call.request.options.show_reasoning for call in thinker.calls]
    assert (asked[0], asked[-1]) == (None, True)


@pytest.mark.long
async def test_two_strategies_are_compared_on_a_narrow_dark_screen(browser: Browser) -> None:
    def act(page: Any) -> None:
        page.check("#compare")
        page.select_option("#second", "vote")
        ask(page)
        page.wait_for_selector(".run:nth-of-type(1) .figures")
        page.wait_for_selector(".run:nth-of-type(2) .figures")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        report = axe.Axe().run(page)
        assert report.violations_count == 0, report.generate_report()

    await in_browser(browser, panel(), act, color_scheme="dark", viewport={"width": 360, "height": 700})


async def test_a_conversation_goes_on_and_an_image_goes_along(browser: Browser, tmp_path: Any) -> None:
    picture = tmp_path / "dot.png"
    picture.write_bytes(bytes.fromhex("89504e470d0a1a0a") + bytes(32))
    model = FakeModel("First.", usage=None)

    def act(page: Any) -> None:
        page.select_option("#target", "a")
        page.set_input_files("#files", str(picture))
        page.wait_for_selector("#attachments li")
        ask(page, "What is this?")
        page.wait_for_selector(".turn:nth-of-type(1) .figures")
        ask(page, "And then?")
        page.wait_for_selector(".turn:nth-of-type(2) .figures")

    await in_browser(browser, {"a": model}, act)

    [question, answer, further] = model.calls[-1].request.messages
    assert [part.__class__.__name__ for part in question.parts] == ["TextPart", "ImagePart"]
    assert (answer.text, further.text) == ("First.", "And then?")


async def test_escape_stops_a_run(browser: Browser) -> None:
    model = FakeModel("Never.", gated=True)

    def act(page: Any) -> None:
        ask(page)
        page.wait_for_selector(".card.asked")
        page.keyboard.press("Escape")
        page.wait_for_selector("p.error:has-text('stopped')")
        assert page.locator("#send").is_enabled()

    await in_browser(browser, {"a": model}, act)
    assert model.running == 0


@pytest.mark.long
async def test_the_operations_are_seen(browser: Browser) -> None:
    def act(page: Any) -> None:
        ask(page)
        page.wait_for_selector(".figures")
        page.click("text=Operations")
        page.wait_for_selector("#operations table.data")
        assert "coordinator" in page.locator(".tree.root").inner_text()
        assert page.locator("#operations td.up").count() == 2
        row = page.locator("#operations table.data tbody tr").first.inner_text()
        assert "0, 0 wait" in row
        assert "closed" in row
        report = axe.Axe().run(page)
        assert report.violations_count == 0, report.generate_report()

    await in_browser(browser, panel(), act)


async def with_history(
    browser: Browser, models: dict[str, object], act: Callable[[Any], None], **context: Any
) -> Any:
    """Act on the page of a service that keeps runs, and return the service."""
    service = service_of(models, journal="memory")
    async with serving(service) as url:
        await browser.act(url, act, **context)
    return service


async def test_a_run_under_way_is_followed_after_a_reload_and_by_its_link(browser: Browser) -> None:
    model = FakeModel(FakeAnswer("It is ", "blue, ", "is it not?"), gated=True)

    def act(page: Any) -> None:
        ask(page)
        page.wait_for_selector(".card.asked")
        page.wait_for_url("**/#run=*")
        address = page.url
        page.reload()
        page.wait_for_selector(".card.asked")
        assert page.locator(".turn h2").inner_text() == "Which colour?"
        assert page.locator("#stop").is_visible()
        other = page.context.new_page()
        other.goto(address)
        other.wait_for_selector(".card.asked")
        model.gate.set()
        for each in (page, other):
            each.wait_for_selector(".figures")
            assert "It is blue, is it not?" in each.locator(".answer .text").inner_text()
        report = axe.Axe().run(page)
        assert report.violations_count == 0, report.generate_report()

    await with_history(browser, {"a": model}, act)
    assert len([call for call in model.calls if "Which colour?" in call.prompt]) >= 1


@pytest.mark.long
async def test_text_from_right_to_left_has_its_own_direction_and_names_are_whole(browser: Browser) -> None:
    left = """(selector) => {
        const range = document.createRange();
        const node = document.querySelector(selector);
        range.selectNodeContents(node);
        return [range.getBoundingClientRect().left - node.getBoundingClientRect().left, node.clientWidth];
    }"""

    def act(page: Any) -> None:
        ask(page, "מהי הבירה?")
        page.wait_for_selector(".figures")
        for selector in (".turn > h2", ".answer .text p"):
            space, width = page.evaluate(left, selector)
            assert space > width / 2, selector  # it stands at the right
        page.click("text=Operations")
        page.wait_for_selector("#operations li b:text-is('meta/llama 50%')")

    await in_browser(browser, {"meta/llama 50%": FakeModel("פריז.")}, act)


@pytest.mark.long
async def test_a_run_has_the_same_title_after_a_reload(browser: Browser) -> None:
    def act(page: Any) -> None:
        for number, (target, strategy) in enumerate(
            (("council", ""), ("council", "vote"), ("a", ""), ("a", "self_consistency")), start=1
        ):
            page.select_option("#target", target)
            page.select_option("#strategy", strategy)
            ask(page)
            page.wait_for_selector(f".turn:nth-of-type({number}) .figures")
        titles = page.locator(".run h3").all_inner_texts()
        assert [title.removesuffix(" link") for title in titles] == [
            "council, synthesize",
            "council, vote",
            "a",
            "a, self_consistency",
        ]
        page.reload()
        page.wait_for_selector(".turn:nth-of-type(4) .figures")
        assert page.locator(".run h3").all_inner_texts() == titles

    await with_history(browser, {"a": FakeModel("Blue."), "b": FakeModel("Blue.")}, act)


@pytest.mark.long
async def test_the_cost_names_the_models_of_which_it_is_not_known(browser: Browser) -> None:
    priced = FakeModel("Blue.", info=ModelInfo(price=Price(input=1.0, output=1.0)))

    def act(page: Any) -> None:
        ask(page)
        page.wait_for_selector(".figures")
        assert ", not known for free" in page.locator(".figures").inner_text()

    await in_browser(browser, {"priced": priced, "free": FakeModel("Blue.")}, act)


@pytest.mark.long
async def test_a_conversation_goes_on_after_a_reload(browser: Browser) -> None:
    model = FakeModel(["First.", "Second.", "Third."])

    def act(page: Any) -> None:
        page.select_option("#target", "a")
        for number, text in enumerate(("One?", "Two?"), start=1):
            ask(page, text)
            page.wait_for_selector(f".turn:nth-of-type({number}) .figures")
        page.reload()
        page.wait_for_selector(".turn:nth-of-type(2) .figures")
        assert page.locator(".turn h2").all_inner_texts() == ["One?", "Two?"]
        assert "First." in page.locator(".turn").first.inner_text()
        page.wait_for_selector("#send:not([disabled])")
        ask(page, "Three?")
        page.wait_for_selector(".turn:nth-of-type(3) .figures")

    await with_history(browser, {"a": model}, act)
    said = [message.text for message in model.calls[-1].request.messages]
    assert said == ["One?", "First.", "Two?", "Second.", "Three?"]


@pytest.mark.long
@pytest.mark.parametrize("again", ["reload", "none"])
async def test_what_was_attached_is_shown_and_goes_along_after_a_reload(
    browser: Browser, tmp_path: Any, again: str
) -> None:
    picture, document = tmp_path / "dot.png", tmp_path / "report.txt"
    picture.write_bytes(bytes.fromhex("89504e470d0a1a0a") + bytes(32))
    document.write_text("A report.")
    model = FakeModel(["First.", "Second.", "Third."], usage=None)

    def act(page: Any) -> None:
        page.select_option("#target", "a")
        page.set_input_files("#files", [str(picture), str(document)])
        page.wait_for_selector("#attachments li:nth-of-type(2)")
        for number, text in enumerate(("What is this?", "And then?"), start=1):
            ask(page, text)
            page.wait_for_selector(f".turn:nth-of-type({number}) .figures")
        if again == "reload":
            page.reload()
            page.wait_for_selector(".turn:nth-of-type(2) .figures")
        first = page.locator(".turn").first
        assert first.locator(".attachments li").all_inner_texts() == ["dot.png", "report.txt"]
        assert first.locator(".attachments img").get_attribute("src").startswith("data:image/png")
        assert page.locator(".turn h2").all_inner_texts() == ["What is this?", "And then?"]
        assert page.locator(".turn").last.locator(".attachments").count() == 0
        page.wait_for_selector("#send:not([disabled])")
        ask(page, "Why?")
        page.wait_for_selector(".turn:nth-of-type(3) .figures")
        report = axe.Axe().run(page)
        assert report.violations_count == 0, report.generate_report()

    await with_history(browser, {"a": model}, act)
    said = model.calls[-1].request.messages
    assert [message.text for message in said] == ["What is this?", "First.", "And then?", "Second.", "Why?"]
    kinds = [part.__class__.__name__ for part in said[0].parts]
    assert kinds == ["TextPart", "ImagePart", "FilePart"]


@pytest.mark.long
async def test_a_question_that_was_stopped_is_no_part_of_it_after_a_reload(
    browser: Browser,
) -> None:
    model = FakeModel(["First.", "Never.", "Third."])

    def act(page: Any) -> None:
        page.select_option("#target", "a")
        ask(page, "One?")
        page.wait_for_selector(".turn:nth-of-type(1) .figures")
        model.seconds = 600.0
        ask(page, "Two?")
        page.wait_for_selector(".turn:nth-of-type(2) .permalink")
        page.keyboard.press("Escape")
        page.wait_for_selector("p.error:has-text('stopped')")
        model.seconds = 0.0
        page.reload()
        page.wait_for_selector("p.error:has-text('stopped')")
        assert page.locator(".turn h2").all_inner_texts() == ["One?", "Two?"]
        page.wait_for_selector("#send:not([disabled])")
        ask(page, "Three?")
        page.wait_for_selector(".turn:nth-of-type(3) .figures")

    await with_history(browser, {"a": model}, act)
    assert [message.text for message in model.calls[-1].request.messages] == ["One?", "First.", "Three?"]


@pytest.mark.long
async def test_escape_cancels_a_kept_run(browser: Browser) -> None:
    model = FakeModel("Never.", gated=True)

    def act(page: Any) -> None:
        ask(page)
        page.wait_for_selector(".card.asked")
        page.keyboard.press("Escape")
        page.wait_for_selector("p.error:has-text('stopped')")
        assert page.locator("#send").is_enabled()
        page.click("text=History")
        page.wait_for_selector(".history li:has-text('cancelled')")

    await with_history(browser, {"a": model}, act)
    assert model.running == 0


@pytest.mark.parametrize("width", [pytest.param(360, marks=pytest.mark.long), 1200])
async def test_the_history_lists_reopens_and_deletes_runs(browser: Browser, width: int) -> None:
    def act(page: Any) -> None:
        page.check("#compare")
        page.select_option("#second", "vote")
        ask(page, "Which colour, of which one hears so much, has the sky of an evening in June?")
        page.wait_for_selector(".run:nth-of-type(2) .figures")
        page.click("text=New conversation")
        page.uncheck("#compare")
        ask(page, "And the sea?")
        page.wait_for_selector(".figures")
        page.click("text=History")
        page.wait_for_selector(".history li:nth-of-type(3)")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        report = axe.Axe().run(page)
        assert report.violations_count == 0, report.generate_report()
        page.click(".history a >> text=And the sea?")
        page.wait_for_selector(".turn h2:has-text('And the sea?')")
        page.wait_for_selector(".figures")
        assert page.locator(".card").count() >= 2
        page.go_back()
        page.wait_for_selector(".history li:nth-of-type(3)")
        page.click("[aria-label='Delete: And the sea?']")
        page.wait_for_selector(".history li:nth-of-type(3)", state="detached")

    await with_history(browser, panel(), act, viewport={"width": width, "height": 800})


@pytest.mark.long
async def test_a_lost_connection_is_taken_up_where_it_was(browser: Browser) -> None:
    model = FakeModel(FakeAnswer("It is ", "blue."), gated=True)

    def act(page: Any) -> None:
        cut = {"count": 0}

        def once(route: Any) -> None:
            cut["count"] += 1
            if cut["count"] == 1:
                model.gate.set()
                route.abort()
            else:
                route.continue_()

        page.route("**/events?after=*", once)
        ask(page)
        page.wait_for_selector(".card.asked")
        page.reload()
        page.wait_for_selector(".figures")
        assert cut["count"] >= 2
        assert "It is blue." in page.locator(".answer .text").inner_text()

    await with_history(browser, {"a": model}, act)


@pytest.mark.long
async def test_a_link_to_a_run_that_is_not_there_says_so(browser: Browser) -> None:
    def act(page: Any) -> None:
        page.goto(page.url.partition("#")[0] + "#run=..%2F..%2Fhealthz")
        page.wait_for_selector("#form-error:not([hidden])")
        assert "there is no" in page.locator("#form-error").inner_text()

    await with_history(browser, {"a": FakeModel("It is blue.")}, act)


@pytest.mark.long
async def test_the_ranking_of_the_models_is_shown(browser: Browser) -> None:
    essays = {name: f"Essay {name} about the sky." for name in "abc"}
    best = {"a": ("c", "b"), "b": ("c", "a"), "c": ("b", "a")}
    models: dict[str, object] = {
        name: member(name, text, rank=preferring(*(essays[each] for each in best[name])))
        for name, text in essays.items()
    }

    def act(page: Any) -> None:
        page.select_option("#strategy", "rank")
        ask(page)
        page.wait_for_selector("details:has-text('Ranking') table")
        table = page.locator("details:has(> summary:text-is('Ranking')) table")
        rows = [row.split() for row in table.locator("tbody tr").all_inner_texts()]
        assert rows == [["1", "c", "1.00"], ["2", "b", "0.25"], ["3", "a", "0.00"]]
        report = axe.Axe().run(page)
        assert report.violations_count == 0, report.generate_report()

    await with_history(browser, models, act)


async def test_the_budgets_of_a_key_are_seen(browser: Browser) -> None:
    key = new_key()
    settings = ServeConfig(keys=(KeyConfig(name="alice", hash=hash_of(key), dollars_per_day=2.0),))
    service = service_of({"a": FakeModel("It is blue.")}, settings=settings)

    def act(page: Any) -> None:
        page.click("text=Operations")
        page.wait_for_selector("h2:has-text('Budgets of the key alice')")
        table = page.locator("h2:has-text('Budgets') + div table")
        assert table.locator("tbody tr").inner_text().split("\t")[:4] == [
            *("dollars a day", "$0.0000", "$2.0000", "$2.0000"),
        ]
        report = axe.Axe().run(page)
        assert report.violations_count == 0, report.generate_report()

    async with serving(service) as url:
        await browser.act(url, act, key=key)
