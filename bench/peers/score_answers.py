"""One side of bench/score_actions.py: `score_answers.py one_pass|five_passes PROMPTS` prints seconds, scores and peak memory.

Float32, equal threads; the second of two passes is timed, over the same prompts.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import tapehouse.training.shared_prompt  # noqa: F401  # on both sides, so that peaks of memory are of the passes
from tapehouse.inference.scoring import score

PROMPT, BATCH, VOCABULARY = 256, 16, 512
ANSWERS = [[7, 8, 1], [8, 1], [9, 10, 11, 1], [10, 1], [11, 12, 1]]  # of at most four tokens, the stop token among them


def base() -> LlamaForCausalLM:
    """A decoder of 3 million weights."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=192, intermediate_size=768, num_hidden_layers=5, num_attention_heads=6
    )
    return LlamaForCausalLM(config).eval()


def one_pass(model: LlamaForCausalLM, prompts: list[list[int]]) -> list[list[float]]:
    """Scores (prompts, answers), as adapters are asked for them."""
    return score(model, prompts, [ANSWERS] * len(prompts), 0).tolist()


def five_passes(model: LlamaForCausalLM, prompts: list[list[int]]) -> list[list[float]]:
    """The same, an answer after the other; logits at the answer alone."""
    columns = []
    with torch.inference_mode():
        for answer in ANSWERS:
            scores = []
            for start in range(0, len(prompts), BATCH):
                ids = torch.tensor([prompt + answer for prompt in prompts[start : start + BATCH]])
                logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(answer) + 1).logits[:, :-1]
                chances = logits.float().log_softmax(-1)
                told = chances.gather(2, torch.tensor(answer)[None, :, None].expand(len(ids), -1, 1))
                scores.append(told.double().sum(dim=(1, 2)))
            columns.append(torch.cat(scores))
    return torch.stack(columns, dim=1).tolist()


def main(side: str, count: int) -> None:
    """Time one side."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    way = {"one_pass": one_pass, "five_passes": five_passes}[side]
    prompts = torch.randint(13, VOCABULARY, (count, PROMPT), generator=torch.Generator().manual_seed(1)).tolist()
    model = base()
    way(model, prompts)
    started = time.perf_counter()
    scores = way(model, prompts)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "scores": scores, "peak_mib": peak}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
