"""What the answers of each family look like: orders, theses and a trading agent's, and which class an action counts for.

The classes are those of `models.predictions`: SELL, HOLD, BUY. A thesis's five actions count by their direction; of an agent's,
those that only move a stop place no order and count as HOLD.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import polars as pl

from tapehouse.inference.grammar import agent_grammar, order_grammar, thesis_grammar
from tapehouse.predictions import BUY, HOLD, SELL
from tapehouse.prompts import agent, orders, thesis
from tapehouse.teacher import write_theses
from tapehouse.token_rows import ORDER_ROOM, THESIS_ROOM
from tapehouse.tokens import encode_answers

if TYPE_CHECKING:
    from tapehouse.tokens import Vocabulary


@dataclass(frozen=True, slots=True)
class Choices:
    """The answers that a prompt may get if all but the action is given: `common`, then one of `texts`, by action."""

    common: str
    texts: dict[str, str]


class Family(ABC):
    """How the answers of one family are written and read.

    Attributes:
        name: that of the family's templates.
        class_of: the class that each action counts for, in the order in which they are scored.
        most: tokens that an answer may take. room: those that its prompt leaves free.
        marked: whether tags and actions are the tokenizer's markers. priced: whether an answer states a limit.
    """

    name: ClassVar[str]
    class_of: ClassVar[dict[str, str]]
    most: ClassVar[int]
    room: ClassVar[int]
    marked: ClassVar[bool] = False
    priced: ClassVar[bool] = False

    @abstractmethod
    def grammar(self, prompt: str, vocabulary: Vocabulary) -> str:
        """The grammar of the answers to a prompt."""

    @abstractmethod
    def read(self, texts: pl.Series, prompts: pl.Series) -> pl.DataFrame:
        """What answers state: `parse_state`, `action` (of `class_of`) and, of some families, `limit_price` and `confidence`."""

    @abstractmethod
    def choices(self, points: pl.DataFrame, prompts: pl.Series, template: str) -> list[Choices]:
        """Of each decision, the answers that say what its prompt implies and differ in their action."""

    @abstractmethod
    def exchanged(self, text: str) -> Choices | None:
        """An answer that parses as one of several that differ in their action; None where that decides what else is said."""

    def first_tokens(self, vocabulary: Vocabulary) -> list[int] | None:
        """The tokens, by action, at which answers part at their first place; None where they do not."""
        firsts = [ids[0] for ids in encode_answers(vocabulary, list(self.class_of))]
        return firsts if len(set(firsts)) == len(firsts) else None


class Orders(Family):
    """One limit order; `tapehouse.prompts.orders`."""

    name = "order"
    class_of: ClassVar = {SELL: SELL, HOLD: HOLD, BUY: BUY}
    most = room = ORDER_ROOM  # the longest within the grammar takes 57: a price and forty letters of a reason, one by one
    priced = True

    def grammar(self, prompt: str, vocabulary: Vocabulary) -> str:
        """Limits within the band around the price that the prompt shows."""
        return order_grammar(prompt)

    def read(self, texts: pl.Series, prompts: pl.Series) -> pl.DataFrame:
        """With limit and confidence."""
        return orders.parse_orders(texts, prompts)

    def choices(self, points: pl.DataFrame, prompts: pl.Series, template: str) -> list[Choices]:
        """Orders at the price shown, with the confidence and the reason that follow from the prompt."""
        said = zip(orders.confidences(points), orders.reason_words(points), strict=True)
        found = []
        for prompt, (confidence, reason) in zip(prompts, said, strict=True):
            price = orders.shown_text(prompt)
            limits = {SELL: float(price), HOLD: None, BUY: float(price)}
            texts = {
                action: orders.answer(action, limit, confidence, reason, orders.PriceForm.of(price))
                for action, limit in limits.items()
            }
            found.append(Choices("", texts))
        return found

    def exchanged(self, text: str) -> Choices | None:
        """None: an order has a limit, HOLD has none."""
        return None


class Theses(Family):
    """A thesis in XML; `tapehouse.prompts.thesis`."""

    name = "thesis"
    class_of: ClassVar = {"strong_sell": SELL, "sell": SELL, "hold": HOLD, "buy": BUY, "strong_buy": BUY}
    most = room = THESIS_ROOM
    marked = True

    def grammar(self, prompt: str, vocabulary: Vocabulary) -> str:
        """The same for every prompt."""
        return thesis_grammar(vocabulary)

    def read(self, texts: pl.Series, prompts: pl.Series) -> pl.DataFrame:
        """The action alone; what its claims say is in the text."""
        return thesis.parse_theses(texts).select("parse_state", "action")

    def choices(self, points: pl.DataFrame, prompts: pl.Series, template: str) -> list[Choices]:
        """Sections and claims as the teacher writes them, who reads them off the prompt; the action is what is asked."""
        written = write_theses(prompts, points, ["hold"] * len(prompts), template)
        return [_apart(thesis.thesis_text(one)) for one in written]

    def exchanged(self, text: str) -> Choices | None:
        """The same thesis with each of the five actions."""
        return _apart(text)


class Agents(Family):
    """What a trading agent does now; `tapehouse.prompts.agent`."""

    name = "agent"
    class_of: ClassVar = {action: action if action in (SELL, HOLD, BUY) else HOLD for action in agent.ACTIONS}
    most = room = ORDER_ROOM

    def grammar(self, prompt: str, vocabulary: Vocabulary) -> str:
        """The same for every prompt."""
        return agent_grammar()

    def read(self, texts: pl.Series, prompts: pl.Series) -> pl.DataFrame:
        """With confidence."""
        return agent.parse_agents(texts)

    def choices(self, points: pl.DataFrame, prompts: pl.Series, template: str) -> list[Choices]:
        """With the confidence and the reason that follow from the prompt."""
        said = zip(agent.shown_confidences(points), agent.shown_reasons(points), strict=True)
        return [Choices("", {action: agent.agent_answer(action, *words) for action in agent.ACTIONS}) for words in said]

    def exchanged(self, text: str) -> Choices | None:
        """The same confidence and reason with each of the actions."""
        _, _, rest = text.partition(" | ")
        return Choices("", {action: f"{action} | {rest}" for action in agent.ACTIONS})


FAMILIES: Final[dict[str, Family]] = {family.name: family for family in (Orders(), Theses(), Agents())}


def _apart(text: str) -> Choices:
    """A thesis as what comes before its action, and the rest with each of the five."""
    common, _, _ = text.rpartition("<action>")
    return Choices(common, {action: f"<action>{action}</action></thesis>" for action in thesis.ACTIONS})
