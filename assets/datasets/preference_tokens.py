"""One row per (symbol, interval, decision_at, objective, placement, tokenizer): token ids of a prompt and of two answers to it.

Chosen and rejected. Unpacked and uncut, each answer with its stop token, which is part of the loss; what cannot fit is in the
quarantine.
"""

from tapehouse.tables import reads, table


@table(reads("datasets.preference_pairs"), reads("models.tokenizer"), rejects=True, most_rows=100_000)
def build(b):
    import polars as pl

    from tapehouse.refusals import quarantined
    from tapehouse.token_rows import ORDER_ROOM, preference_tokens
    from tapehouse.tokens import stored_tokenizers

    known, table = stored_tokenizers(b.read("models.tokenizer"), b.settings.root), "datasets.preference_tokens"
    key = ("symbol", "interval", "decision_at", "objective", "placement")
    said = ("prompt", "chosen", "rejected", "margin_bps", "stage", "difficulty")
    pairs = b.read("datasets.preference_pairs").select(*key, *said, "reward_end_at", "reward_known_at", "template")
    made = preference_tokens(pairs, known, table, "datasets.preference_pairs", room=ORDER_ROOM)
    # A length that tells the better answer would be learnt in place of the price.
    unequal = made.rows.filter(pl.col("chosen_ids").list.len() != pl.col("rejected_ids").list.len())
    b.note(**made.facts, unequal_lengths=unequal.height)
    refused = quarantined([made.refused], b.existing("raw.quarantine"), b.ingested_at)
    return {table: made.rows, "raw.quarantine": refused}
