"""A model for tests: it answers, waits, streams and fails as the test says, on trio and on asyncio.

    from ultra.testing import FakeModel

    llama = FakeModel("Paris.").fail(times=2)
    orchestrator.register_model("llama", llama)

See docs/testing.md.
"""

from ultra.testing.any_loop import AnyLoopEvent
from ultra.testing.fake_model import CallOutcome, FakeCall, FakeModel
from ultra.testing.script import FakeAnswer, Script, ScriptedAnswer

__all__ = ["AnyLoopEvent", "CallOutcome", "FakeAnswer", "FakeCall", "FakeModel", "Script", "ScriptedAnswer"]
