"""One row per (dataset, symbol, interval, decision_at, objective, tokenizer): token ids of a prompt and the answer to learn.

`orders`: where a pair's side agrees with the triple-barrier label the answer is the best paid order, where the label is 0 it
is HOLD; other decisions give no example. `instructions`: the trading agent's. Unpacked and uncut; what cannot fit its
tokenizer is in the quarantine. An example is known when all that it rests on is.
"""

from tapehouse.tables import reads, table


@table(
    reads("datasets.preference_pairs"),
    reads("labels.triple_barrier"),
    reads("datasets.instructions"),
    reads("models.tokenizer"),
    rejects=True,
    most_rows=100_000,
)
def build(b):
    import polars as pl

    from tapehouse.examples import supervised_examples
    from tapehouse.refusals import quarantined
    from tapehouse.token_rows import ORDER_ROOM, supervised_tokens
    from tapehouse.tokens import stored_tokenizers

    known, table = stored_tokenizers(b.read("models.tokenizer"), b.settings.root), "datasets.sft_tokens"
    orders = supervised_examples(b.read("datasets.preference_pairs"), b.read("labels.triple_barrier"))
    orders = orders.with_columns(dataset=pl.lit("orders"))
    agent = b.read("datasets.instructions").select(set(orders.columns) - {"dataset", "objective"})
    agent = agent.with_columns(dataset=pl.lit("instructions"), objective=pl.lit("none"))
    parts = [
        supervised_tokens(orders, known, table, "datasets.preference_pairs", room=ORDER_ROOM),
        supervised_tokens(agent.select(orders.columns), known, table, "datasets.instructions"),
    ]
    rows = pl.concat([part.rows for part in parts])
    for name, part in zip(("orders", "instructions"), parts, strict=True):
        b.note(**{f"{name}_{fact}": count for fact, count in part.facts.items()})
    b.note(**dict(rows["action"].value_counts(sort=True).iter_rows()))
    refused = quarantined([part.refused for part in parts], b.existing("raw.quarantine"), b.ingested_at)
    return {table: rows, "raw.quarantine": refused}
