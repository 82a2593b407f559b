"""One row per (symbol, interval, decision_at, objective): token ids of a prompt, its chosen and its rejected answer.

Unpacked and uncut, each answer with its stop token, which is part of the loss.
"""

from tapehouse.tables import reads, table


@table(reads("datasets.preference_pairs"), reads("models.tokenizer"))
def build(b):
    import polars as pl

    from tapehouse.examples import preference_tokens
    from tapehouse.tokens import stored_tokenizer

    tokenizer, digest = stored_tokenizer(b.read("models.tokenizer"), b.settings.root)
    rows = preference_tokens(b.read("datasets.preference_pairs"), tokenizer, digest)
    lengths = rows.select(pl.col("chosen_ids", "rejected_ids").list.len())
    # A length that tells the better answer would be learnt in place of the price.
    b.note(pairs=rows.height, unequal_lengths=lengths.filter(pl.col("chosen_ids") != pl.col("rejected_ids")).height)
    return rows
