"""One row per (symbol, interval, decision_at, objective): token ids of a prompt and of the answer to learn from it.

Where a pair's side agrees with the triple-barrier label the answer is the better paid order, where the label is 0 it is
HOLD; other decisions give no example. Unpacked and uncut; an example is known when its label and its reward both are.
"""

from tapehouse.tables import reads, table


@table(reads("datasets.preference_pairs"), reads("labels.triple_barrier"), reads("models.tokenizer"))
def build(b):
    from tapehouse.examples import supervised_examples, supervised_tokens
    from tapehouse.tokens import stored_tokenizer

    tokenizer, digest = stored_tokenizer(b.read("models.tokenizer"), b.settings.root)
    pairs = b.read("datasets.preference_pairs")
    examples = supervised_examples(pairs, b.read("labels.triple_barrier"))
    rows = supervised_tokens(examples, tokenizer, digest)
    b.note(
        pairs=pairs.height,
        examples=rows.height,
        **dict(rows["action"].value_counts().iter_rows()),
        longest=rows["input_ids"].list.len().max(),
    )
    return rows
