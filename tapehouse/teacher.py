"""A deterministic teacher: theses written from what a prompt shows, in words that a hash of the row's key chooses.

The teacher reads the prompt, not the decision point (`tapehouse.prompts.shown`): every number in a thesis stands in its
prompt, with the same digits, and what the prompt does not show is unknown. Sections and claims are functions of the prompt
and of the key alone; only the action is of another kind, the five-class signal that a fold's thresholds cut from what came
after. So the reasoning describes and never argues for what nobody could know.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import numpy as np
import polars as pl

from tapehouse.keyed import keyed_uniform
from tapehouse.prompts.shown import Shown, shown
from tapehouse.prompts.thesis import CLAIMS, SECTIONS, Claim, Thesis

Seen = Mapping[str, Shown]
VOLATILE: Final = 2.00  # per cent a day, as the prompt prints it
RSI_LOW, RSI_HIGH = 30.0, 70.0  # Wilder (1978), New Concepts in Technical Trading Systems: oversold and overbought
SENTIMENTS: Final = ("news_sentiment_30d", "filing_sentiment_90d")  # the first that is shown
PROFITS: Final = ("return_on_assets", "net_margin")  # the first that is shown; Piotroski (2000) asks the former to be positive
MARKET_CLAUSES: Final = 2  # of the three that can be said, so that a thesis stays short
DIRECTIONAL: Final = ("quality", "sentiment", "momentum", "insider_buying", "momentum_10d", "momentum_30d")
STANCE: Final = {"strong_sell": -1.0, "sell": -0.5, "hold": 0.0, "buy": 0.5, "strong_buy": 1.0}


def write_theses(prompts: pl.Series, points: pl.DataFrame, actions: Iterable[str], template: str) -> list[Thesis]:
    """The teacher's thesis on each decision point.

    Args:
        prompts: of the points, by the template.
        points: `symbol, interval, decision_at`: the key that chooses among wordings.
        actions: of each point, one of `tapehouse.prompts.thesis.ACTIONS`.
    """
    draws = zip(*(keyed_uniform(points, f"thesis|{name}").tolist() for name in SECTIONS), strict=True)
    theses = []
    for prompt, action, drawn in zip(prompts, actions, draws, strict=True):
        seen = shown(prompt, template)
        theses.append(Thesis(sections_of(seen, dict(zip(SECTIONS, drawn, strict=True))), claims_of(seen), action))
    return theses


def claims_of(seen: Seen) -> dict[str, Claim]:
    """What holds of a decision point by the values that its prompt shows, and the evidence as it stands there."""
    claims = dict.fromkeys(CLAIMS, Claim(None))
    sentiment, profit = _first(seen, SENTIMENTS), _first(seen, PROFITS)
    for name, value, above in (
        ("quality", profit, 0.0),
        ("sentiment", sentiment, 0.0),
        ("momentum", seen.get("ret_63d"), 0.0),
        ("insider_buying", seen.get("insider_buys_90d"), 0.0),
        ("volatility", seen.get("ret_deviation_20d"), VOLATILE),
        ("momentum_10d", seen.get("momentum_10d"), 0.0),
        ("momentum_30d", seen.get("momentum_30d"), 0.0),
    ):
        if value is not None:
            claims[name] = Claim(value.number > above, (value.phrase,))
    month = seen.get("momentum_30d")
    if month is not None and sentiment is not None:
        claims["divergence"] = Claim(month.number * sentiment.number < 0, (month.phrase, sentiment.phrase))
    return claims


def sections_of(seen: Seen, draws: Mapping[str, float]) -> dict[str, str | None]:
    """The six sections; None for one about which the prompt shows nothing. `draws` in [0, 1) choose the words of each."""
    written: dict[str, str | None] = {}
    for name in SECTIONS:
        words = _Words(seen, draws[name])
        clauses = list(_CLAUSES[name](seen, words))
        if len(clauses) > 1 and words.draw(2):
            clauses.reverse()
        text = "; ".join(clauses)
        written[name] = f"{text[:1].upper()}{text[1:]}." if text else None
    return written


def difficulty(claims: Mapping[str, bool | None], action: str) -> float:
    """How far an action is from what its claims suggest, 0 (they agree) to 1 (they are opposite).

    Half the distance between the action (-1 strong_sell, -0.5 sell, 0 hold, 0.5 buy, 1 strong_buy) and the mean of the known
    claims that have a direction, 1 for one that holds and -1 for one that does not.
    """
    told = [1.0 if claims[name] else -1.0 for name in DIRECTIONAL if claims[name] is not None]
    return abs(STANCE[action] - (sum(told) / len(told) if told else 0.0)) / 2


class _Words:
    """Wordings by one draw, which is used up digit by digit: each choice among n takes its share of it."""

    def __init__(self, seen: Seen, drawn: float):
        self._values = {column: value.text for column, value in seen.items()}
        self._left = int(drawn * 2**48)

    def draw(self, count: int) -> int:
        self._left, chosen = divmod(self._left, count)
        return chosen

    def __call__(self, *wordings: str) -> str:
        return wordings[self.draw(len(wordings))].format_map(self._values)


def _trend(seen: Seen, say: _Words) -> Iterator[str]:
    if {"momentum_10d", "momentum_30d"} <= seen.keys():
        signs = tuple(np.sign(seen[name].number) for name in ("momentum_10d", "momentum_30d"))
        yield {
            (1, 1): lambda: say(
                "price rises, {momentum_10d} in ten days and {momentum_30d} in thirty",
                "the trend is up by {momentum_30d} over thirty days and {momentum_10d} over ten",
                "buyers lead with {momentum_10d} in ten days after {momentum_30d} in thirty",
                "a steady rise, {momentum_30d} and lately {momentum_10d}",
            ),
            (-1, -1): lambda: say(
                "price falls, {momentum_10d} in ten days and {momentum_30d} in thirty",
                "the trend is down by {momentum_30d} over thirty days and {momentum_10d} over ten",
                "sellers lead with {momentum_10d} in ten days after {momentum_30d} in thirty",
                "a steady fall, {momentum_30d} and lately {momentum_10d}",
            ),
            (1, -1): lambda: say(
                "a rebound of {momentum_10d} in ten days inside a fall of {momentum_30d}",
                "price turns up, {momentum_10d} in ten days against {momentum_30d} in thirty",
                "the last ten days made {momentum_10d}, thirty days {momentum_30d}",
            ),
            (-1, 1): lambda: say(
                "a pullback of {momentum_10d} in ten days inside a rise of {momentum_30d}",
                "price turns down, {momentum_10d} in ten days against {momentum_30d} in thirty",
                "the last ten days made {momentum_10d}, thirty days {momentum_30d}",
            ),
        }.get(signs, lambda: say("price moved {momentum_10d} in ten days and {momentum_30d} in thirty"))()
    if "rsi_14" in seen:
        if seen["rsi_14"].number > RSI_HIGH:
            yield say("rsi {rsi_14} is overbought", "rsi at {rsi_14} is stretched")
        elif seen["rsi_14"].number < RSI_LOW:
            yield say("rsi {rsi_14} is oversold", "rsi at {rsi_14} is washed out")
        else:
            yield say("rsi {rsi_14} is neutral", "rsi {rsi_14} is at no extreme", "rsi reads {rsi_14}")


def _risk(seen: Seen, say: _Words) -> Iterator[str]:
    if "ret_deviation_20d" in seen:
        if seen["ret_deviation_20d"].number > VOLATILE:
            yield say(
                "daily swings of {ret_deviation_20d} are wide",
                "at {ret_deviation_20d} a day it is volatile",
                "size with care, a day deviates {ret_deviation_20d}",
            )
        else:
            yield say(
                "daily swings of {ret_deviation_20d} are contained",
                "at {ret_deviation_20d} a day it is calm",
                "risk is moderate, a day deviates {ret_deviation_20d}",
            )
    if {"realised_vol_20d", "market_vol_20d"} <= seen.keys():
        yield _by_sign(
            seen["realised_vol_20d"].number - seen["market_vol_20d"].number,
            lambda: say(
                "{realised_vol_20d} a year is above the market's {market_vol_20d}",
                "more volatile than the market, {realised_vol_20d} against {market_vol_20d}",
            ),
            lambda: say(
                "{realised_vol_20d} a year is below the market's {market_vol_20d}",
                "less volatile than the market, {realised_vol_20d} against {market_vol_20d}",
            ),
            lambda: say("{realised_vol_20d} a year is what the market has"),
        )


def _market(seen: Seen, say: _Words) -> Iterator[str]:
    clauses = []
    if "relative_strength_20d" in seen:
        clauses.append(
            _by_sign(
                seen["relative_strength_20d"].number,
                lambda: say(
                    "it leads the market by {relative_strength_20d}", "relative strength is good, {relative_strength_20d}"
                ),
                lambda: say(
                    "it trails the market, {relative_strength_20d}", "relative strength is poor, {relative_strength_20d}"
                ),
                lambda: say("it moves with the market, {relative_strength_20d}"),
            )
        )
    if "market_ret_20d" in seen:
        clauses.append(say("the market made {market_ret_20d} in a month", "the month gave the market {market_ret_20d}"))
    if "regime" in seen:
        clauses.append(say("the regime is {regime}", "its own regime reads {regime}"))
    if len(clauses) == MARKET_CLAUSES + 1:
        del clauses[say.draw(len(clauses))]
    yield from clauses


def _macro(seen: Seen, say: _Words) -> Iterator[str]:
    if "vix_change_28d" in seen:
        yield _by_sign(
            seen["vix_change_28d"].number,
            lambda: say("fear grows, vix {vix} after {vix_change_28d}", "vix is up {vix_change_28d} to {vix}"),
            lambda: say("fear fades, vix {vix} after {vix_change_28d}", "vix is down {vix_change_28d} to {vix}"),
            lambda: say("vix stays at {vix}"),
        )
    if "credit_spread_change_28d" in seen:
        yield _by_sign(
            seen["credit_spread_change_28d"].number,
            lambda: say(
                "credit spreads widen {credit_spread_change_28d} to {credit_spread}",
                "credit costs more, spread {credit_spread} after {credit_spread_change_28d}",
            ),
            lambda: say(
                "credit spreads narrow {credit_spread_change_28d} to {credit_spread}",
                "credit eases, spread {credit_spread} after {credit_spread_change_28d}",
            ),
            lambda: say("credit spreads stay at {credit_spread}", "credit is steady, spread {credit_spread}"),
        )


def _company(seen: Seen, say: _Words) -> Iterator[str]:
    profit = _first(seen, PROFITS)
    if profit is not None:
        of = "its assets" if profit is seen.get("return_on_assets") else "its sales"
        yield _by_sign(
            profit.number,
            lambda: say(f"it earns {profit.text} on {of}", f"profitable, {profit.text} on {of}"),
            lambda: say(f"it loses money, {profit.text} on {of}", f"unprofitable, {profit.text} on {of}"),
            lambda: say(f"it breaks even, {profit.text} on {of}"),
        )
    if "insider_buys_90d" in seen:
        if seen["insider_buys_90d"].number > 0:
            yield say("insiders bought, {insider_buys_90d} in all", "insider purchases {insider_buys_90d}")
        else:
            yield say("no insider bought", "insiders did not buy")


def _news(seen: Seen, say: _Words) -> Iterator[str]:
    tone = _first(seen, SENTIMENTS)
    if tone is not None:
        of = "articles" if tone is seen.get("news_sentiment_30d") else "filings"
        yield _by_sign(
            tone.number,
            lambda: say(
                f"{of} sound good, {tone.text}",
                f"the tone of {of} is kind, {tone.text}",
                f"at {tone.text} {of} are favourable",
                f"words in {of} are more good than bad, {tone.text}",
            ),
            lambda: say(
                f"{of} sound bad, {tone.text}",
                f"the tone of {of} is harsh, {tone.text}",
                f"at {tone.text} {of} are unfavourable",
                f"words in {of} are more bad than good, {tone.text}",
            ),
            lambda: say(f"{of} are even in tone, {tone.text}"),
        )


def _by_sign(number: float, up: Callable[[], str], down: Callable[[], str], level: Callable[[], str]) -> str:
    return up() if number > 0 else down() if number < 0 else level()


def _first(seen: Seen, columns: tuple[str, ...]) -> Shown | None:
    return next((seen[column] for column in columns if column in seen), None)


_CLAUSES: Final = {
    "trend": _trend,
    "risk": _risk,
    "market": _market,
    "macro": _macro,
    "company": _company,
    "news": _news,
}
