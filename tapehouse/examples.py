"""Examples of order datasets: from pairs and labels to prompts and answers, one row an example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.prompts.orders import confidences, hold_instead, price_form, reason_words, render_answers, render_orders
from tapehouse.prompts.templates import Selection

POINT: Final = ("symbol", "interval", "decision_at")
UNSIDED: Final = 0  # of labels.triple_barrier: 1 up, -1 down, 0 neither barrier in time


def render_pairs(pairs: pl.DataFrame, points: pl.DataFrame, words: Mapping[str, str], shown: Selection) -> pl.DataFrame:
    """The columns of `pairs`, and `prompt`, `chosen`, `rejected`, `template`, in the order of the pairs.

    Args:
        pairs: `objective, side, chosen_limit, rejected_limit` of each (symbol, interval, decision_at), limits in currency.
        points: `features.decision_points` over the same range.
        words: wording of each objective.
        shown: the template and what is hidden in it.

    Raises:
        TapehouseError: a pair's decision is not among the points.
    """
    joined = pairs.join(points, on=POINT, how="left", maintain_order="left")
    lost = joined.filter(pl.col("close").is_null())
    if lost.height:
        raise TapehouseError(
            f"datasets.preference_pairs: {lost['symbol'][0]} at {lost['decision_at'][0]} is not in features.decision_points"
        )
    said = confidences(joined), reason_words(joined), price_form(shown.template)
    return pairs.with_columns(
        render_orders(joined, words, shown.template, shown.mask).alias("prompt"),
        render_answers(joined["side"], joined["chosen_limit"], *said).alias("chosen"),
        render_answers(joined["side"], joined["rejected_limit"], *said).alias("rejected"),
        pl.lit(shown.version).alias("template"),
    )


def supervised_examples(pairs: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """Prompts with the answer to learn: the columns of the key, `objective, action, prompt, answer, label_end_at` and so on.

    Where a pair's side agrees with the unsided label the answer is the better paid order; where neither barrier was met in
    time it is HOLD; other rows, and rows whose label is null, give no example. A decision and objective give one at most: of
    several placements the best paid. An example ends, and is known, when the later of its label and its reward does, so that
    purging takes the longest of what it rests on.

    Args:
        pairs: rows of `datasets.preference_pairs`.
        labels: rows of `labels.triple_barrier` over the same decisions.
    """
    unsided = labels.filter(pl.col("side") == UNSIDED).select(*POINT, "label", "label_end_at", "label_known_at")
    rows = pairs.join(unsided, on=POINT, how="inner", maintain_order="left").filter(pl.col("label").is_not_null())
    agrees = (pl.col("label") == 1) & (pl.col("side") == "BUY") | (pl.col("label") == -1) & (pl.col("side") == "SELL")
    rows = rows.with_columns(hold_instead(rows["chosen"]).alias("hold")).filter((pl.col("label") == 0) | agrees)
    hold = pl.col("label") == 0
    key = [*POINT, "objective"]
    best = rows.sort(*key, "chosen_reward", "placement", descending=[*[False] * len(key), True, False])
    return best.unique(key, keep="first", maintain_order=True).select(
        *key,
        action=pl.when(hold).then(pl.lit("HOLD")).otherwise("side"),
        prompt="prompt",
        answer=pl.when(hold).then("hold").otherwise("chosen"),
        label_end_at=pl.max_horizontal("label_end_at", "reward_end_at"),
        label_known_at=pl.max_horizontal("label_known_at", "reward_known_at"),
        stage="stage",
        difficulty="difficulty",
        template="template",
    )
