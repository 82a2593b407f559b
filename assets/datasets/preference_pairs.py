"""One row per (symbol, interval, decision_at, objective, placement): two limits of one order, the better paid one chosen.

Paid by implementation shortfall on what happened after; near-ties dropped. The prompt shows raw units and no date. Kept at
declared rates, so that regimes, objectives, sides and symbols are balanced in expectation.
"""

from tapehouse.prompts.templates import fingerprint
from tapehouse.tables import reads, table


# The longest window of an objective is fifteen sessions: it ends within a month of the decision.
@table(
    reads("features.decision_points"),
    reads("staging.bars", lookahead_months=1),
    reads("raw.corporate_actions", lookahead_months=1),
    files=("objectives.yaml",),
    fingerprint=fingerprint("order"),
)
def build(b):
    from dataclasses import asdict
    from datetime import timedelta

    from tapehouse.calendars import all_sessions
    from tapehouse.examples import render_pairs
    from tapehouse.orders import load_objectives
    from tapehouse.pairs import preference_pairs
    from tapehouse.prompts.orders import price_form
    from tapehouse.prompts.templates import selected

    universe = b.settings.universe
    objectives = load_objectives(b.settings.home / "objectives.yaml")
    shown = selected(b.settings.home, "order")
    points = b.read("features.decision_points")
    pairs = preference_pairs(
        points,
        b.read("staging.bars"),
        b.read("raw.corporate_actions"),
        objectives,
        b.start,
        b.end,
        all_sessions(universe.calendar),
        settlement_lag=timedelta(days=universe.settlement_lag_days),
        largest=price_form(shown.template).largest,
    )
    b.note(
        **asdict(pairs.counts),
        farther_wins=pairs.farther_wins,
    )
    return render_pairs(pairs.rows, points, objectives.words, shown)
