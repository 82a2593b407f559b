"""One row per (tokenizer): what turns the text of a base model into token ids, trained here or the base's own.

models_registry/tokenizers/ declares one for each base. One that is trained here has read prompts and answers of every family
that were known before the first fold's training ended. A base's own is missing until `make` has fetched the base. The files
lie in the folder `path`, named by their digest; token tables name the digest that their ids are of.
"""

from tapehouse.prompts.templates import fingerprint as shown_by
from tapehouse.tables import reads, table
from tapehouse.vocabularies import tokenizers_fingerprint


def fingerprint(settings, start, end):
    return f"{tokenizers_fingerprint(settings, start, end)} {shown_by('thesis')(settings, start, end)}"


@table(
    reads("datasets.preference_pairs", window="before_folds"),
    reads("datasets.instructions", window="before_folds"),
    reads("features.decision_points", window="before_folds"),
    reads("features.company", window="before_folds"),
    fingerprint=fingerprint,
)
def build(b):
    import polars as pl

    from tapehouse.prompts.templates import selected
    from tapehouse.tokenizer_texts import instruction_texts, order_texts, thesis_texts
    from tapehouse.tokens import load_tokenizer
    from tapehouse.vocabularies import TOKENIZERS, load_tokenizer_recipes, make_tokenizer, own_source

    until = b.project.first_fitted_until
    points, shown = b.read("features.decision_points"), selected(b.settings.home, "thesis")
    texts = [
        *order_texts(b.read("datasets.preference_pairs"), until),
        *instruction_texts(b.read("datasets.instructions"), until),
        *thesis_texts(points, b.read("features.company"), shown),
    ]
    made = []
    for base, recipe in load_tokenizer_recipes(b.settings.home).items():
        source = own_source(recipe, b.settings.models_dir)
        if recipe.own and source is None:
            b.note(**{base: f"not fetched: {b.settings.models_dir / recipe.own}"})
            continue
        folder, digest = make_tokenizer(recipe, texts, source, b.workdir)
        known = load_tokenizer(folder)
        trained = {"texts": len(texts), "trained_until": until} if recipe.train else {"texts": 0, "trained_until": None}
        special = {"stop_id": known.stop, "pad_id": known.pad, "markers": len(known.markers), "max_length": known.max_length}
        where = {"tokenizer": digest, "base": base, "path": str(folder.relative_to(b.settings.root))}
        made.append({**where, "vocabulary": known.get_vocab_size(), **special, **trained})
        b.note(**{base: f"{digest}, {known.get_vocab_size()} tokens"})
    b.note(texts=len(texts))
    return pl.DataFrame(made, schema=TOKENIZERS)
