"""Supervised examples of the trading agent: what to do in each state of the account, by what the barriers said later.

The label is `labels.triple_barrier` from the next open on, in the direction of the position (unsided where there is none): the
price goes 1.5 ATR *with* the position first, *against* it first, or *nowhere* within ten sessions. It is *soon* within
`SOON_SESSIONS`. To leave a position is to sell a long one, to buy a short one back.

| state of the account | with | nowhere | against, soon | against, later |
| --- | --- | --- | --- | --- |
| flat (with: up, against: down) | BUY | HOLD | SELL | SELL |
| open at a loss | HOLD | HOLD | leave | leave |
| in profit, stop short of the entry | ENABLE_TRAIL | MOVE_TO_BE | leave | MOVE_TO_BE |
| in profit, stop at the entry | ENABLE_TRAIL | HOLD | leave | leave |
| in profit, stop trailing | HOLD | DISABLE_TRAIL | leave | HOLD |

In hindsight leaving always beats a stop at the entry: MOVE_TO_BE is what a desk does while it has time, and so it is taught
where nothing happens soon. A trail is let go where the price goes nowhere and would only shake the position out, and left to
do its work where the turn comes late.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import polars as pl

from tapehouse.prompts.agent import render_agent_answers, render_agents, shown_confidences, shown_reasons
from tapehouse.prompts.templates import Selection

POINT: Final = ("symbol", "interval", "decision_at")
SOON_SESSIONS: Final = 5  # half of the barriers' horizon
STATES: Final = ("flat", "loss", "profit", "even", "trailing")
# What is null early in a record, and always shown.
NEEDED: Final = ("adx_14", "plus_di_14", "minus_di_14")
# A drift of two standard errors of the mean counts as a full trend.
FULL_DRIFT: Final = 2.0
STAGE: Final = "decision"
COLUMNS: Final = (
    *POINT,
    *("state", "followed", "action", "prompt", "answer", "stage", "difficulty"),
    *("label_end_at", "label_known_at", "template"),
)


def instructions(
    points: pl.DataFrame, states: pl.DataFrame, labels: pl.DataFrame, start: datetime, end: datetime, selection: Selection
) -> pl.DataFrame:
    """One example for each decision point in [start, end) whose label is known; columns as in its check file.

    Args:
        points: `features.decision_points`.
        states: `features.policy_state` of the same decisions.
        labels: `labels.triple_barrier` of the same decisions, all three sides.
        start, end: UTC bounds of `decision_at`.
        selection: template and mask of the family `agent`.

    Raises:
        ValueError: a value that the template always shows is null or not finite.
    """
    points = points.filter((pl.col("decision_at") >= start) & (pl.col("decision_at") < end))
    account = states.drop("session", "known_at")
    rows = points.drop_nulls(NEEDED).join(account, on=POINT, how="inner", maintain_order="left")
    outcome = labels.select(*POINT, "label", "sessions_held", "label_end_at", "label_known_at", position="side")
    rows = rows.join(outcome, on=[*POINT, "position"], how="inner", maintain_order="left").drop_nulls("label").sort(POINT)
    rows = rows.with_columns(state=account_state(), followed=followed())
    rows = rows.with_columns(action=right_action(), difficulty=difficulty(), stage=pl.lit(STAGE))
    return rows.with_columns(
        prompt=render_agents(rows, selection.template, selection.mask),
        answer=render_agent_answers(rows["action"], shown_confidences(rows), shown_reasons(rows)),
        template=pl.lit(selection.version),
    ).select(COLUMNS)


def account_state() -> pl.Expr:
    """Which row of the table a decision is in, by the account alone."""
    short_of_entry = pl.col("position") * (pl.col("entry_price") - pl.col("stop_price")) > 0
    return (
        pl.when(pl.col("position") == 0)
        .then(pl.lit("flat"))
        .when("trailing")
        .then(pl.lit("trailing"))
        .when(pl.col("unrealised_ret") <= 0)
        .then(pl.lit("loss"))
        .when(short_of_entry)
        .then(pl.lit("profit"))
        .otherwise(pl.lit("even"))
    )


def followed() -> pl.Expr:
    """Which column of the table a decision is in, by its label alone."""
    soon = pl.col("sessions_held") <= SOON_SESSIONS
    return (
        pl.when(pl.col("label") == 1)
        .then(pl.lit("with"))
        .when(pl.col("label") == 0)
        .then(pl.lit("nowhere"))
        .when(soon)
        .then(pl.lit("against_soon"))
        .otherwise(pl.lit("against_later"))
    )


def right_action() -> pl.Expr:
    """The cell of the table, from `state`, `followed` and `position`."""
    leave = pl.when(pl.col("position") > 0).then(pl.lit("SELL")).otherwise(pl.lit("BUY"))
    rule = pl.concat_str("state", "followed", separator=" ").replace_strict(_RULES, return_dtype=pl.String)
    return pl.when(rule == _LEAVE).then(leave).otherwise(rule)


def difficulty() -> pl.Expr:
    """How far the drift before the decision points away from what followed, 0 (with it) to 1 (against it).

    The drift is `drift_score_20d`, two standard errors being a full trend. Where nothing followed, a full trend is hardest.
    """
    drift = (pl.col("drift_score_20d").fill_null(0.0) / FULL_DRIFT).clip(-1.0, 1.0)
    side = pl.when(pl.col("position") == 0).then(1).otherwise(pl.col("position"))
    went = side * pl.col("label")
    return pl.when(went == 0).then(drift.abs()).otherwise(0.5 * (1.0 - went * drift))


_LEAVE: Final = "leave"
_TABLE: Final = {
    #            with            nowhere          against, soon   against, later
    "flat": ("BUY", "HOLD", "SELL", "SELL"),
    "loss": ("HOLD", "HOLD", _LEAVE, _LEAVE),
    "profit": ("ENABLE_TRAIL", "MOVE_TO_BE", _LEAVE, "MOVE_TO_BE"),
    "even": ("ENABLE_TRAIL", "HOLD", _LEAVE, _LEAVE),
    "trailing": ("HOLD", "DISABLE_TRAIL", _LEAVE, "HOLD"),
}
_RULES: Final = {
    f"{state} {what}": action
    for state, actions in _TABLE.items()
    for what, action in zip(("with", "nowhere", "against_soon", "against_later"), actions, strict=True)
}
