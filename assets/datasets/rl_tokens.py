"""One row per (symbol, interval, decision_at, family, objective, tokenizer): token ids of a prompt to be answered and rewarded.

What a reward needs is in datasets.rl_prompts, by the same key. A prompt leaves room for the longest answer of its family;
one that cannot is in the quarantine.
"""

from tapehouse.tables import reads, table


@table(reads("datasets.rl_prompts"), reads("models.tokenizer"), rejects=True, most_rows=100_000)
def build(b):
    import polars as pl

    from tapehouse.refusals import quarantined
    from tapehouse.token_rows import ORDER_ROOM, THESIS_ROOM, prompt_tokens
    from tapehouse.tokens import stored_tokenizers

    known, table = stored_tokenizers(b.read("models.tokenizer"), b.settings.root), "datasets.rl_tokens"
    keep = ("symbol", "interval", "decision_at", "family", "objective", "prompt", "stage", "difficulty")
    prompts = b.read("datasets.rl_prompts").select(*keep, "label_end_at", "label_known_at", "template")
    parts = {
        family: prompt_tokens(prompts.filter(family=family), known, table, "datasets.rl_prompts", room)
        for family, room in (("order", ORDER_ROOM), ("thesis", THESIS_ROOM))
    }
    for family, part in parts.items():
        b.note(**{f"{family}_{fact}": count for fact, count in part.facts.items()})
    refused = quarantined([part.refused for part in parts.values()], b.existing("raw.quarantine"), b.ingested_at)
    return {table: pl.concat([part.rows for part in parts.values()]), "raw.quarantine": refused}
