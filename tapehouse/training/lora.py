"""What is trained: a base as its recipe holds it (float32, NF4, int8) with low-rank factors, or all of its weights.

Quantisation: NF4 is the 4-bit float of QLoRA (Dettmers and others 2023), int8 the LLM.int8 of Dettmers and others 2022, both by
bitsandbytes; what they leave alone (embeddings, norms) is in float32, and so is every weight that is trained.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from tapehouse.errors import TapehouseError
from tapehouse.recipe_sections import AdapterSection, QuantisationSection
from tapehouse.tokens import Vocabulary, load_tokenizer
from tapehouse.training.job import Job

ADAPTER_CONFIG = "adapter_config.json"
AS_IT_IS = QuantisationSection()
disable_progress_bar()  # a bar for the loading of a few megabytes


def adapted_model(job: Job) -> PreTrainedModel | PeftModel:
    """What a method trains, as the job's recipe says: a base with a new or the parent's adapter, or all of the weights.

    Seeds torch, so that a new adapter is a function of the job. Raises TapehouseError as :func:`load_base`.
    """
    recipe, folder = job.recipe, job.folder
    torch.manual_seed(job.seed)
    parent = folder / "parent" if recipe.model.init_from is not None else None
    full = recipe.adapter.kind == "full"
    base = load_base(
        parent if parent and full else folder / "base",
        folder / "tokenizer",
        recipe.quantisation,
        recipe.model.device,
        trust_remote_code=any((folder / "base").glob("*.py")),  # a job's folder holds a base's code where it is trusted
    )
    if full:
        return base
    if recipe.quantisation.kind != "none":
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=recipe.budget.activation_checkpointing)
    if parent:
        return PeftModel.from_pretrained(base, parent, is_trainable=True, local_files_only=True)
    return get_peft_model(base, lora_config(recipe.adapter, base, load_tokenizer(folder / "tokenizer")))


def load_base(
    folder: Path,
    tokenizer: Path | None = None,
    quantisation: QuantisationSection = AS_IT_IS,
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """A base model from the safetensors of a local folder, in float32 or quantised.

    With `tokenizer`, the folder of a stored one, it gets a row for each token that was added to its vocabulary, begun as the
    mean of the rows of the pieces that the token is spelled in (Hewitt 2021, without the noise).

    Raises:
        TapehouseError: the folder's model needs code of its own that is not trusted, or there is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise TapehouseError(f"{folder}: model.device: cuda, but torch sees no GPU here; take a host with one, or device cpu")
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,  # nothing of foreign origin is unpickled
            trust_remote_code=trust_remote_code,
            dtype=torch.float32,
            quantization_config=_quantised(quantisation),
            device_map={"": device if device == "cpu" else 0},
        )
    except ValueError as error:
        if "trust_remote_code" in str(error):
            raise TapehouseError(
                f"{folder}: this model runs code of its own; read it, then set trust_remote_code: true in the base's recipe"
            ) from error
        raise
    for layer in model.modules():
        # In its first pass without gradients bitsandbytes would lay a CPU's 4-bit weights out anew, where the CPU has AVX-512:
        # DoRA and dequantising then read them wrongly, and results would hang on the kind of CPU.
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    if tokenizer is not None:
        _add_rows(model, load_tokenizer(tokenizer))
    return model


def load_trained(
    base: Path,
    trained: Path | None,
    tokenizer: Path,
    device: str = "cpu",
    quantisation: QuantisationSection = AS_IT_IS,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """A trained model for answering, in float32: the base with an adapter merged into it, or the weights of a full training.

    `trained` is a folder of `models.adapters`; None loads the base alone. The tokenizer is the one it was trained with, and so
    is `quantisation`: an adapter corrects the base it has seen, so the weights are rounded as they were, then merged.
    """
    if trained is not None and not (trained / ADAPTER_CONFIG).is_file():
        return load_base(trained, tokenizer, AS_IT_IS, device, trust_remote_code).eval()
    model = load_base(base, tokenizer, quantisation, device, trust_remote_code)
    if quantisation.kind != "none":
        model = model.dequantize(dtype=torch.float32)
    if trained is not None:
        model = PeftModel.from_pretrained(model, trained, local_files_only=True).merge_and_unload()
    return model.eval()


def lora_config(section: AdapterSection, base: PreTrainedModel, vocabulary: Vocabulary) -> LoraConfig:
    """The recipe's adapter section as peft knows it: factors on its targets, and the rows of the tokenizer's markers.

    Markers are the tokens that were added to a vocabulary. Under LoRA alone embeddings are frozen, and theirs would stay noise.

    Raises:
        TapehouseError: a target is no module of the base; peft would leave it out as long as another one is.
    """
    names = [name for name, _ in base.named_modules()]
    absent = [target for target in section.targets if not any(f".{name}".endswith(f".{target}") for name in names)]
    if absent:
        known = sorted({name.rpartition(".")[2] for name, part in base.named_modules() if isinstance(part, torch.nn.Linear)})
        raise TapehouseError(f"adapter.targets: the base has no module named {absent}; its linear ones are {known}")
    rows = sorted(vocabulary.markers.values()) if section.markers else []
    tied = base.config.get_text_config().tie_word_embeddings
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=section.rank,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=section.targets,
        use_dora=section.dora,
        use_rslora=section.rslora,
        # Of tied weights peft trains one row for both ends; others have a row at either.
        trainable_token_indices=({"embed_tokens": rows} | ({} if tied else {"lm_head": rows})) if rows else None,
    )


def copy_reference(model: PeftModel) -> None:
    """Complete the frozen copy `ref` that a trainer takes of the adapter: it leaves out the rows of added tokens."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("trainable_tokens_delta.default"):
                model.get_parameter(name.removesuffix("default") + "ref").copy_(weight)


def save_adapter(model: PreTrainedModel | PeftModel, base: str, folder: Path) -> None:
    """Write weights and configuration to `folder`, the base by its name and not by a path of this machine."""
    if not isinstance(model, PeftModel):
        model.save_pretrained(folder)
        return
    # The trainer keeps a copy of a parent's adapter as the reference; it is not part of the result. Trained rows of the
    # embeddings are in the adapter by themselves: whole embeddings are not saved, nor their size asked for at a hub.
    model.save_pretrained(folder, selected_adapters=["default"], save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
    file = folder / ADAPTER_CONFIG
    config = json.loads(file.read_text())
    config["base_model_name_or_path"] = base
    file.write_text(json.dumps(config, indent=1, sort_keys=True))


def _quantised(section: QuantisationSection) -> BitsAndBytesConfig | None:
    if section.kind == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=section.double,
            bnb_4bit_compute_dtype=torch.bfloat16 if section.compute == "bf16" else torch.float32,
        )
    return BitsAndBytesConfig(load_in_8bit=True) if section.kind == "int8" else None


def _add_rows(model: PreTrainedModel, vocabulary: Vocabulary) -> None:
    held = model.get_input_embeddings().weight.shape[0]
    if vocabulary.get_vocab_size() <= held:  # some bases keep spare rows
        return
    model.resize_token_embeddings(vocabulary.get_vocab_size(), mean_resizing=False)
    ends = {id(end.weight): end.weight for end in (model.get_input_embeddings(), model.get_output_embeddings())}
    with torch.no_grad():
        for text, row in vocabulary.markers.items():
            pieces = vocabulary.tokenizer.encode(text, add_special_tokens=False).ids
            for weight in ends.values():
                weight[row] = weight[pieces].mean(dim=0)
