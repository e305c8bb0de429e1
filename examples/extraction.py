"""Extracting data: three models read an invoice, and their answers are merged field by field.

Start it with ``python examples/extraction.py``. The models are written below and disagree: it needs no key.
In their place, ``connect("openai:gpt-4o")`` and its like are asked for the schema by their APIs.
"""

from typing import Literal

import trio
from msgspec import Struct, json

from ultra import Fields, MultiLLMOrchestrator
from ultra.testing import FakeModel

TEXT = "Invoice A-17 of 3 May. 2 pens at 1.50, 1 lamp at 24.90. Paid in euros."


class Item(Struct):
    """One line of an invoice."""

    name: str
    quantity: int
    price: float


class Invoice(Struct):
    """What is to be read out of the text."""

    number: str
    currency: Literal["EUR", "USD"]
    paid: bool
    items: list[Item]


PENS, LAMP = Item("pens", 2, 1.5), Item("lamp", 1, 24.9)
CAREFUL = Invoice("A-17", "EUR", paid=True, items=[PENS, LAMP])
HASTY = Invoice("A-17", "USD", paid=True, items=[LAMP, Item("pens", 2, 15.0)])
BLIND = Invoice("17", "EUR", paid=False, items=[PENS])


async def main() -> None:
    """Merge the answers, and show how sure each field is; one model has to be asked twice."""
    async with MultiLLMOrchestrator() as orchestrator:
        careful = f"Here is the invoice:\n```json\n{json.encode(CAREFUL).decode()}\n```"
        orchestrator.register_model("careful", FakeModel(careful))
        orchestrator.register_model("hasty", FakeModel(["Which one?", json.encode(HASTY).decode()]))
        orchestrator.register_model("blind", FakeModel(json.encode(BLIND).decode()))

        result = await orchestrator.process_responses(
            f"Read the invoice: {TEXT}", output=Invoice, strategy=Fields(key="name")
        )

        print(result.output)
        for path, share in result.agreement.items():
            print(f"{share:.2f}  {path}")
        print(f"hasty was asked {result['initial_responses']['hasty'].attempts} times")


if __name__ == "__main__":
    trio.run(main)
