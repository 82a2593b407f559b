"""One row per (tokenizer): the tokenizer of all prompts and answers, trained on text known before the first fold.

The files lie in the folder `path`, named by their digest; token tables name the digest they were made with.
"""

from tapehouse.tables import reads, table


@table(reads("datasets.preference_pairs", window="before_folds"))
def build(b):
    import polars as pl

    from tapehouse.examples import tokenizer_texts
    from tapehouse.folds import first_train_end
    from tapehouse.tokens import load_tokenizer, store_tokenizer

    until = first_train_end(b.folds)
    # Decided before the end of training is not enough: a reward chose which answer is called the better one.
    known = b.read("datasets.preference_pairs").filter(pl.col("reward_known_at") < until)
    texts = tokenizer_texts(known)
    folder, digest = store_tokenizer(texts, b.workdir)
    size = load_tokenizer(folder).get_vocab_size()
    b.note(texts=len(texts), vocabulary=size, path=str(folder))
    return pl.DataFrame(
        {
            "tokenizer": [digest],
            "path": [str(folder.relative_to(b.settings.root))],
            "vocabulary": [size],
            "texts": [len(texts)],
            "trained_until": [until],
        },
        schema_overrides={"vocabulary": pl.Int32, "trained_until": pl.Datetime("us", "UTC")},
    )
