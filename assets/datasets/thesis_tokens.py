"""One row per (fold, symbol, interval, decision_at, origin, tokenizer): token ids of a prompt and of a thesis to learn from it.

Tags and the action are one token each where the tokenizer has them as markers. Unpacked and uncut, the stop token inside the
loss; what cannot fit is in the quarantine.
"""

from tapehouse.tables import reads, table


@table(reads("datasets.theses"), reads("models.tokenizer"), rejects=True)
def build(b):
    from tapehouse.refusals import quarantined
    from tapehouse.token_rows import supervised_tokens
    from tapehouse.tokens import stored_tokenizers

    known, table = stored_tokenizers(b.read("models.tokenizer"), b.settings.root), "datasets.thesis_tokens"
    key = ("fold", "symbol", "interval", "decision_at", "origin")
    keep = (*key, "action", "prompt", "answer", "stage", "difficulty", "label_end_at", "label_known_at", "known_at", "template")
    made = supervised_tokens(b.read("datasets.theses").select(keep), known, table, "datasets.theses", marked=True)
    b.note(**made.facts, longest=made.rows["input_ids"].list.len().max())
    return {table: made.rows, "raw.quarantine": quarantined([made.refused], b.existing("raw.quarantine"), b.ingested_at)}
