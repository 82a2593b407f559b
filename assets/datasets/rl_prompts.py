"""One row per (symbol, interval, decision_at, family, objective): a prompt with all that a verifiable reward needs.

Orders carry their window's settled bars, so that any limit can be paid; theses the score that a fold's class is cut from.
"""

from tapehouse.prompts.templates import fingerprint
from tapehouse.tables import reads, table


# The longest window of an objective is fifteen sessions: it ends within a month of the decision.
@table(
    reads("features.decision_points"),
    reads("features.company"),
    reads("labels.signal"),
    reads("staging.bars", lookahead_months=1),
    reads("raw.corporate_actions", lookahead_months=1),
    files=("objectives.yaml",),
    fingerprint=fingerprint("order", "thesis"),
)
def build(b):
    from datetime import timedelta

    from tapehouse.calendars import all_sessions
    from tapehouse.orders import load_objectives
    from tapehouse.prompts.templates import selected
    from tapehouse.rl_prompts import rl_prompts

    universe, home = b.settings.universe, b.settings.home
    prompts = rl_prompts(
        b.read("features.decision_points"),
        b.read("features.company"),
        b.read("labels.signal"),
        b.read("staging.bars"),
        b.read("raw.corporate_actions"),
        load_objectives(home / "objectives.yaml"),
        b.start,
        b.end,
        all_sessions(universe.calendar),
        selected(home, "order"),
        selected(home, "thesis"),
        settlement_lag=timedelta(days=universe.settlement_lag_days),
    )
    b.note(still=prompts.still, incomplete=prompts.incomplete, without_score=prompts.without_score)
    return prompts.rows
