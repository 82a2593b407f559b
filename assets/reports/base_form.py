"""One row per (base): whether the base knows the form of an order, on prompts it has never seen.

The prompts are those of decisions after the first fold's training end, for every objective. A base that does not hold the
form makes whatever is trained on it a matter of form, too: the contract stops there.
"""

from tapehouse.prompts.templates import fingerprint
from tapehouse.tables import reads, table


@table(
    reads("models.nano"),
    reads("models.tokenizer"),
    reads("features.decision_points", window="all"),
    files=("objectives.yaml",),
    fingerprint=fingerprint("order"),
)
def build(b):
    from tapehouse.base_form import form_figures, unseen_prompts
    from tapehouse.inference.asking import predict
    from tapehouse.orders import load_objectives
    from tapehouse.prompts.templates import selected
    from tapehouse.tokens import load_tokenizer, stored_tokenizer_path
    from tapehouse.training.lora import load_trained

    base = b.read("models.nano")
    words = load_objectives(b.settings.home / "objectives.yaml").words
    shown = selected(b.settings.home, "order")
    prompts = unseen_prompts(b.read("features.decision_points"), words, b.project.first_fitted_until, shown)
    tokenizer = stored_tokenizer_path(b.read("models.tokenizer"), b.settings.root)
    model = load_trained(b.settings.root / base["path"][0], None, tokenizer)
    answers = predict(model, load_tokenizer(tokenizer), prompts.to_list())
    figures = form_figures(prompts, answers)
    b.note(**figures.row(0, named=True))
    return base.select("base", "digest").hstack(figures)
