"""One row per (fold, symbol, interval, decision_at, origin): a thesis on a decision, to learn from, with its prompt.

Of a deterministic teacher, whose action is the fold's five-class signal, and of imported theses in the same form.
"""

from tapehouse.prompts.templates import fingerprint
from tapehouse.tables import reads, table


@table(
    reads("features.decision_points", window="fold"),
    reads("features.company", window="fold"),
    reads("models.signal_classes"),
    reads("staging.theses", window="fold"),
    fingerprint=fingerprint("thesis"),
    rejects=True,
)
def build(b):
    from tapehouse.prompts.templates import selected
    from tapehouse.refusals import quarantined
    from tapehouse.theses import build_theses

    points, company = b.read("features.decision_points"), b.read("features.company")
    chosen = selected(b.settings.home, "thesis")
    built = build_theses(points, company, b.read("models.signal_classes"), b.read("staging.theses"), chosen, b.fold)
    b.note(imported_and_refused=built.refused.height, **dict(built.rows["action"].value_counts(sort=True).iter_rows()))
    refused = quarantined([built.refused], b.existing("raw.quarantine"), b.ingested_at)
    return {"datasets.theses": built.rows, "raw.quarantine": refused}
