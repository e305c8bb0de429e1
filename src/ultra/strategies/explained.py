"""What each strategy does, costs and is good for: one table, which `ultra strategies` and the docs show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from msgspec import Struct

from ultra._support.checks import check_count, did_you_mean, shown
from ultra.errors import BadCall

__all__ = ["EXPLAINED", "Calls", "Explained", "explained"]


class Calls(NamedTuple):
    """The fewest and the most calls of models in a run without failures."""

    fewest: int
    most: int

    def __str__(self) -> str:
        return str(self.fewest) if self.fewest == self.most else f"{self.fewest} to {self.most}"


class Explained(Struct, frozen=True, kw_only=True):
    """One strategy of Ultra's own.

    Attributes:
        name: its name in the catalog.
        does: what it does.
        calls: its calls for N models, in words; `count` counts them.
        pays: for what it pays.
        not_for: where it does not.
        evidence: what is known of it, and from where.
        measured: what was measured here; docs/quality.md has the tables with these numbers.
    """

    name: str
    does: str
    calls: str
    pays: str
    not_for: str
    evidence: str
    measured: str
    count: Callable[[int], tuple[int, int]]

    def calls_for(self, models: int) -> Calls:
        """Return the calls of a run of so many models, with the default options.

        Raises:
            BadCall: it is no whole number of at least 1.
        """
        check_count("models", models)
        return Calls(*self.count(models))


_TABLE: Final = (
    Explained(
        name="synthesize",
        does="All models answer, all analyse the answers, and one merges them. The default.",
        calls="2N + 1; with analysts = one: N + 2, none: N + 1",
        pays="open questions: research, advice, review, comparison; two or three strong models",
        not_for="a weak model as the one that merges, and short answers that can be checked",
        evidence=(
            "Merging the answers of strong models gains 4 to 9 points in deep research, and about three "
            "quarters of that with one model asked twice (OpenRouter, DRACO, n = 100, no intervals). A "
            "weak writer over good answers loses 20 points (recorded panels). arXiv:2406.04692, "
            "2502.00674."
        ),
        measured=(
            "Not measured on recorded answers, of which nobody wrote syntheses. Simulated readers: "
            "-23.0 [-30.5, -15.5] points where they are weak, +10.0 [+4.5, +15.5] where they are "
            "strong."
        ),
        count=lambda n: (2 * n + 1, 2 * n + 1),
    ),
    Explained(
        name="vote",
        does="The final answer that most of the weight stands for; asked for in order until that is certain.",
        calls="N/2 + 1 to N where the weights are equal, and one more without a majority",
        pays="short answers that can be checked, by models of about equal strength",
        not_for="one strong and two weak models with equal weights; open questions",
        evidence=(
            "Five models of equal strength gain 9.0 points over the best (95 % interval 7.1 to 10.8) on "
            "MATH level 5, one strong and two weak lose 3.7 on multiple choice, and nothing with log-odds "
            "weights (recorded panels). Stopping early asks 2.1 to 2.6 of 3. arXiv:2203.11171, "
            "2510.01499, 2604.02863."
        ),
        measured=(
            "MATH level 5, models of equal strength: +3.5 [+1.5, +5.6] points with three for 2.48 "
            "calls, +11.8 [+8.0, +15.8] with six for 5.04 calls. Three cheap models on GSM8K: +0.8 "
            "[-0.1, +1.6]. One strong and two weak: -6.8 [-8.8, -5.0], with fitted weights +0.0 "
            "[-0.4, +0.4]."
        ),
        count=lambda n: (min(n, n // 2 + 1), n + 1 if n > 1 else 1),
    ),
    Explained(
        name="self_consistency",
        does="One model answers several times; the answer that it gives most often stands.",
        calls="3 to 5 of the 5 samples, whatever N is",
        pays="checkable answers where one model is clearly the best; the baseline at equal cost",
        not_for="models that always write the same (temperature 0), and open questions",
        evidence=(
            "Three samples of the best model: three different models beat that significantly in 1 of 84 "
            "triples (recorded panels). arXiv:2203.11171, 2502.06233."
        ),
        measured=(
            "Not measured on recorded answers, which are one a model. In every evaluation of your own "
            "it is the baseline."
        ),
        count=lambda _: (3, 5),
    ),
    Explained(
        name="best_of",
        does="All models answer; a function, a judge or agreement picks one answer, word for word.",
        calls="N; one more with a judge",
        pays="code with tests, exact formats, creative texts",
        not_for="tasks without a verifier, where the judge is weaker than the models",
        evidence=(
            "Where code can be run, that is the signal that tells right from wrong (arXiv:2606.27288). Of "
            "nine judges together about two votes are left, and one good judge is as good "
            "(arXiv:2605.29800)."
        ),
        measured=(
            "By agreement alone, models of equal strength on MATH level 5: +3.5 [+1.5, +5.6] points "
            "with three, +11.8 [+8.0, +15.8] with six; one strong and two weak: -6.8 [-8.8, -5.0]. "
            "Never better than the vote, which asks fewer."
        ),
        count=lambda n: (n, n),
    ),
    Explained(
        name="rank",
        does="Each model ranks the answers of the others, unlabelled; the best places win.",
        calls="2N; one more to merge the best (top = 2 and above)",
        pays="open and creative questions where one whole answer is wanted",
        not_for="fewer than three models, and short answers that can be checked: vote",
        evidence=(
            "Peer scores, then picking, gain 6.9 to 7.3 points over another way of choosing "
            "(arXiv:2512.23213). Models that know the writer prefer themselves, so nobody does."
        ),
        measured=("Not measured on recorded answers, of which nobody wrote rankings."),
        count=lambda n: (n, 2 * n if n > 2 else n),  # noqa: PLR2004 - two cannot rank each other
    ),
    Explained(
        name="cascade",
        does="The two cheapest models first; more, one at a time, only where these disagree or score low.",
        calls="2 to N, and one more where nothing is agreed on",
        pays="many simple questions, where money counts and answers can be checked",
        not_for="hard questions: cheap models then agree on what is wrong, or all are asked in the end",
        evidence=(
            "Two cheap models and a third where they disagree: +2.2 points at equal money on GSM8K, -3.0 "
            "on code output (recorded panels). arXiv:2305.05176, 2310.12963."
        ),
        measured=(
            "Three cheap models on GSM8K: +0.8 [-0.1, +1.6] points, as the vote, for less than half "
            "of its money. Six models of equal strength on MATH level 5: +9.0 [+5.2, +13.0] for 3.28 "
            "calls, about half of the money of the vote. One strong and two weak on GSM8K: -12.5 "
            "[-14.4, -10.7]."
        ),
        count=lambda n: (min(2, n), n + 1 if n > 1 else 1),
    ),
    Explained(
        name="layers",
        does="Mixture of agents: in each layer all answer again, after reading the layer before; one merges.",
        calls="N for each of the 2 rounds, and one more",
        pays="open questions, where quality is worth several times the money",
        not_for="weak or dishonest members, which the others read and believe",
        evidence=(
            "AlpacaEval 65.1 against 57.5 of GPT-4o (arXiv:2406.04692); one good model several times is "
            "better than a mix with weak members (2502.00674); one deceptive member: 49.2 to 37.9 "
            "(2503.05856)."
        ),
        measured=(
            "Not measured on recorded answers. Simulated readers that are weak: -12.5 [-19.0, -6.0] points."
        ),
        count=lambda n: (n, 2 * n + 1 if n > 1 else 1),
    ),
    Explained(
        name="debate",
        does="The models revise their answers after reading all, round by round; then vote or judge.",
        calls="N, and N for each of up to 2 rounds, and one more without a majority",
        pays="rarely: checkable questions on which a vote is split",
        not_for="anything where a vote does: that has most of the gain",
        evidence=(
            "The vote explains most of what a debate gains, and on average a round moves the answers "
            "nowhere (arXiv:2508.17536); one agent does as well with as many tokens (2604.02460)."
        ),
        measured=(
            "Not measured on recorded answers. Simulated readers that are weak: -16.0 [-22.0, -9.5] points."
        ),
        count=lambda n: (n, 3 * n + 1 if n > 1 else 1),
    ),
    Explained(
        name="route",
        does="A function, or a cheap model, chooses who is asked.",
        calls="1, or 2 with a model that chooses; with several chosen, those of their strategy",
        pays="mixed questions, where it can be told beforehand which model is good at them",
        not_for="questions of one kind: ask the best model",
        evidence=(
            "The signal must be in the question: without one, combining rarely beats the best model "
            "(arXiv:2606.27288)."
        ),
        measured=(
            "Not measured on recorded answers. A simulated chooser without a signal, one strong and "
            "two others: -27.0 [-35.0, -19.0] points."
        ),
        count=lambda _: (1, 2),
    ),
    Explained(
        name="fields",
        does="Structured answers are merged field by field; a judge decides what is disputed.",
        calls="N, and one more where fields are disputed",
        pays="extraction, JSON by a schema; it says how sure each field is",
        not_for="text",
        evidence="Agreement field by field tells which fields to look at; no published comparison is known.",
        measured=("Not measured: the recorded panels have no structured answers."),
        count=lambda n: (n, n + 1 if n > 1 else 1),
    ),
)

EXPLAINED: Final = {each.name: each for each in _TABLE}
"""All of Ultra's own strategies, by name."""


def explained(name: str) -> Explained:
    """Return what is to be said of a strategy. Raises `BadCall` where there is none of this name."""
    found = EXPLAINED.get(name)
    if found is None:
        choices = ", ".join(EXPLAINED)
        raise BadCall(f"unknown strategy {shown(name)}; there are: {choices}{did_you_mean(name, EXPLAINED)}")
    return found
