"""Voices of the embedded model: one small model, asked in different ways. No key, no network.

The model is SmolLM2-135M-Instruct, from the extra ``local``. So small a model needs examples: each voice
shows it four questions with short answers. After one or two, it answers what it does not know by an answer
that it was shown. What it writes after its first sentence is mostly wrong or off the subject, so a grammar
ends the answer there; a poem or a list may have four lines.

Loops are stopped by DRY sampling (P. E. Weidmann, 2024), which penalises only what continues a repetition: a
plain repetition penalty makes this model negate the sentences that it should repeat in a synthesis.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import trio
from msgspec import Struct
from msgspec.structs import replace

from ultra.clients.catalog import Facts
from ultra.clients.dialects.model_lists import OfferedModel
from ultra.clients.dialects.openai_chat import OpenAIChat
from ultra.clients.http.client import HTTPClient
from ultra.clients.http.connections import Connections, Hidden, HTTPRequest
from ultra.clients.local.embedded import CONTEXT_WINDOW, EmbeddedServer, find_model, shared_server
from ultra.clients.pricing import Price
from ultra.errors import BadCall, ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ultra.clients.http.body import ResponseBody
    from ultra.clients.http.limits import HTTPLimits
    from ultra.clients.options import CallOptions
    from ultra.messages.request import ModelRequest

__all__ = ["VOICES", "LocalClient", "Voice"]

_NOWHERE: Final = "http://127.0.0.1"  # until the server runs
_FREE: Final = Price(input=0.0, output=0.0)
_MAX_TOKENS: Final = 192
_MOST_OF_AN_OUTPUT: Final = 512
"""Tokens of an answer that is to satisfy a schema."""
_MOST_OF_A_VOICE: Final = 80
"""Tokens of an answer in a voice's own manner: four lines."""

_SHORT: Final = r"""
root ::= line ("\n" line){0,3} [.!?]? ["')]?
line ::= ([0-9] ". ")? part+
part ::= [^.!?\n`] | "`" [^`\n]+ "`" | "." [0-9] | "U.S." | "Mr." | "Mrs." | "Dr." | "St."
"""
"""One sentence, or up to four lines without an end of a sentence, in llama.cpp's notation of grammars."""

# A sentence may come a few times, since candidates repeat each other; a loop may not. The one sequence
# breaker never occurs: by default, each line end would make DRY forget what came before it.
_DRY: Final[Mapping[str, Any]] = {
    "dry_multiplier": 1.0,
    "dry_allowed_length": 16,
    "dry_penalty_last_n": 256,
    "dry_sequence_breakers": ["<|im_end|>"],
}

# In a short answer a loop is short, too; but an answer may well repeat some words of the question.
_SHORT_DRY: Final[Mapping[str, Any]] = {"dry_allowed_length": 5}

_TOO_LONG: Final = re.compile(r"\((\d+) tokens\) exceeds the available context size \((\d+) tokens\)")


class Voice(Struct, frozen=True, kw_only=True):
    """One manner of asking the model.

    `system` and `examples`, questions with their answers, stand before every prompt that comes without a
    system prompt of its own. `sampling` are llama.cpp's parameters.
    """

    system: str
    examples: tuple[tuple[str, str], ...]
    sampling: dict[str, Any]


_YOU: Final = ("Who are you?", "I am a small language model that runs on this computer.")
_OCEAN: Final = ("What is the largest ocean on Earth?", "The largest ocean on Earth is the Pacific Ocean.")
_WEEK: Final = ("How many days are in a week?", "There are seven days in a week.")
_SUM: Final = ("What is 3 + 5?", "3 + 5 equals 8.")
_LEAVES: Final = (
    "Why do leaves fall in autumn?",
    "Leaves fall in autumn because trees save water and energy for the winter.",
)

VOICES: Final[Mapping[str, Voice]] = {
    "careful": Voice(
        system="You are a helpful AI assistant. You answer correctly, in one short sentence.",
        examples=(_YOU, _WEEK, _SUM, _LEAVES),
        sampling={"temperature": 0.0},
    ),
    "creative": Voice(
        system="You are a helpful AI assistant.",
        examples=(_YOU, _OCEAN, _SUM, _LEAVES),
        sampling={"temperature": 0.3, "min_p": 0.2, "seed": 7},
    ),
    "concise": Voice(
        system="You answer in one short sentence.",
        examples=(_YOU, _OCEAN, _SUM, _LEAVES),
        sampling={"temperature": 0.0},
    ),
}
"""Every voice by its name, the default first."""


class VoiceDialect(OpenAIChat):
    """OpenAI's chat completions as llama.cpp offers them, asked as one voice asks."""

    image_urls = False

    def __init__(self, voice: str) -> None:
        super().__init__(voice, provider="local", base_url=_NOWHERE)
        self._voice = VOICES[voice]

    def encode(self, request: ModelRequest, options: CallOptions, *, stream: bool) -> dict[str, Any]:
        """Return the JSON of `request`, after the voice's own words where there is no system prompt."""
        voice = self._voice
        payload = super().encode(request, options, stream=stream)
        given = {name: value for name, value in payload.items() if value is not None}
        defaults = {"max_tokens": _MAX_TOKENS, **_DRY, **voice.sampling}
        if request.output is not None:  # a grammar of its own; the names and values in it repeat each other
            return {"max_tokens": _MOST_OF_AN_OUTPUT, **voice.sampling} | given
        if options.system is None and request.system is None:
            defaults |= {"max_tokens": _MOST_OF_A_VOICE, "grammar": _SHORT, **_SHORT_DRY}
            before = [{"role": "system", "content": voice.system}]
            for question, answer in voice.examples:
                before += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            given["messages"] = [*before, *given["messages"]]
        return defaults | given


class LocalClient(HTTPClient):
    """A voice of the embedded model, which runs in a process of its own on this machine.

    The first call of any voice starts the process, in under three seconds; all voices share it, and it
    ends with the program. After five minutes without a call it gives its memory back, about 400 MB,
    and the next call takes half a second longer.

    Answers are one sentence, or up to four lines, of at most 80 tokens. A `system` prompt given to a call
    takes the place of the voice's own; then answers may be longer, up to 192 tokens, and what remains of the
    voice is how it samples. `max_tokens` sets another limit.

    Args:
        voice: a name in `VOICES`.
        limits: timeouts, which include starting the process.
        options: the defaults of every call.
        server: in place of the one that all voices share.

    Raises:
        BadCall: there is no such voice.
        MissingExtra: the extra ``local`` is not installed.
    """

    def __init__(
        self,
        voice: str = "careful",
        *,
        limits: HTTPLimits | None = None,
        options: CallOptions | None = None,
        server: EmbeddedServer = shared_server,
    ) -> None:
        if voice not in VOICES:
            raise BadCall(f"there is no local voice {voice!r}; the voices are: {', '.join(VOICES)}")
        find_model()
        known = Facts(images=False, pdf=False, audio=False, reasoning=False, output="schema")
        super().__init__(VoiceDialect(voice), limits=limits, options=options, info=known)
        self.info = replace(self.info, context_window=self.context_window, price=_FREE)
        self._connections = _EmbeddedConnections(self.limits, server)

    async def list_models(self) -> tuple[OfferedModel, ...]:
        """Return the voices."""
        await trio.lowlevel.checkpoint()
        return tuple(OfferedModel(name=f"local:{voice}", info=self.info) for voice in VOICES)

    @property
    def context_window(self) -> int:
        """Tokens that prompt and answer may have together."""
        return min(CONTEXT_WINDOW, self.options.context_window or CONTEXT_WINDOW)


class _EmbeddedConnections(Connections):
    """Connections to the embedded server, which the first request starts."""

    def __init__(self, limits: HTTPLimits, server: EmbeddedServer) -> None:
        super().__init__("local", limits, trust_env=False)
        self._server = server

    async def open(self, request: HTTPRequest) -> ResponseBody:
        endpoint = self._server.endpoint
        if endpoint is None:
            # The start of a caller that gives up is finished all the same, for the others.
            endpoint = await trio.to_thread.run_sync(self._server.start, abandon_on_cancel=True)
        url = endpoint.url + request.url.removeprefix(_NOWHERE)
        # llama.cpp's server closes an idle connection at any moment, even while the next request is on its
        # way. A connection on this machine costs nothing, so each request has its own.
        own = {"authorization": f"Bearer {endpoint.api_key}", "connection": "close"}
        headers = request.headers.value | own
        try:
            return await super().open(HTTPRequest(url, Hidden(headers), request.content))
        except ModelError as error:
            found = _TOO_LONG.search(error.message)
            if found is None:
                raise
            failure = ModelError(
                f"the prompt has {found[1]} tokens, more than the {found[2]} of the embedded model's context "
                "window; shorten it, or use a model with a larger window",
                provider=self.provider,
                kind="bad_request",
                status=error.status,
            )
        raise failure
