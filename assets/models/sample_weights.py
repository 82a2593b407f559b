"""One row per (fold, symbol, interval, decision_at, side): what a label weighs in training for a fold.

Raw uniqueness and attributed return of the rows that purging leaves, each scaled to a mean of one over its side.
"""

from tapehouse.tables import reads, table


@table(reads("labels.concurrency", window="train"))
def build(b):
    from tapehouse.weights import effective_labels, effective_samples, weight_rows

    rows = weight_rows(b.read("labels.concurrency"), b.fold)
    for (side,), own in rows.group_by("side", maintain_order=True):
        b.note(
            **{
                f"rows side {side}": own.height,
                f"effective labels side {side}": effective_labels(own["uniqueness"]),
                f"effective samples by attribution side {side}": effective_samples(own["attribution_weight"]),
            }
        )
    return rows
