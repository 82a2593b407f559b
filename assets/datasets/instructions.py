"""One row per (symbol, interval, decision_at): a trading agent's prompt with the action that its barriers proved right.

The account is the reference policy's, the action follows by a declared table from its state and the triple-barrier label.
"""

from tapehouse.prompts.templates import fingerprint
from tapehouse.tables import reads, table


@table(
    reads("features.decision_points"),
    reads("features.policy_state"),
    reads("labels.triple_barrier"),
    fingerprint=fingerprint("agent"),
)
def build(b):
    from tapehouse.instructions import instructions
    from tapehouse.prompts.templates import selected

    points = b.read("features.decision_points")
    chosen = selected(b.settings.home, "agent")
    states, labels = b.read("features.policy_state"), b.read("labels.triple_barrier")
    rows = instructions(points, states, labels, b.start, b.end, chosen)
    actions = rows["action"].value_counts(sort=True).iter_rows()
    b.note(without_features_or_label=points.height - rows.height, **dict(actions))
    return rows
