"""Prompts a second for the log-probabilities of five answers (stop token included) by one pass (ours) and by five (peer).

Prompts of 256 tokens, answers of at most 4. The peer runs prompt + answer for each of the five answers in batches of the same
rows, and makes logits at the answer alone (`logits_to_keep`). Scores are equal to 1e-5. Float32, equal threads, the least of
several runs, interleaved. With --quick 32 prompts in place of 128.
"""

import os
import sys
import time
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "OMP_WAIT_POLICY": "PASSIVE"}
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

from bench.harness import report  # noqa: E402
from tapehouse.training.shared_prompt import AnswerBatch, answer_scores, collate  # noqa: E402

AIM = 4.0
PROMPTS, QUICK_PROMPTS, PROMPT, BATCH, VOCABULARY = 128, 32, 256, 16, 512
ANSWERS = [[7, 8, 1], [8, 1], [9, 10, 11, 1], [10, 1], [11, 12, 1]]
REPEATS = 5


def base() -> LlamaForCausalLM:
    """A decoder of 3 million weights."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=192, intermediate_size=768, num_hidden_layers=5, num_attention_heads=6
    )
    return LlamaForCausalLM(config).eval()


def one_pass(model: LlamaForCausalLM, prompts: list[list[int]]) -> torch.Tensor:
    """Scores (prompts, answers)."""
    batches = (prompts[start : start + BATCH] for start in range(0, len(prompts), BATCH))
    return torch.cat(
        [answer_scores(model, AnswerBatch(**collate([(prompt, ANSWERS) for prompt in batch], 0))) for batch in batches]
    )


def five_passes(model: LlamaForCausalLM, prompts: list[list[int]]) -> torch.Tensor:
    """The same, an answer after the other."""
    columns = []
    for answer in ANSWERS:
        scores = []
        for start in range(0, len(prompts), BATCH):
            ids = torch.tensor([prompt + answer for prompt in prompts[start : start + BATCH]])
            logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(answer) + 1).logits[:, :-1]
            chances = logits.float().log_softmax(-1)
            scores.append(chances.gather(2, torch.tensor(answer)[None, :, None].expand(len(ids), -1, 1)).sum(dim=(1, 2)))
        columns.append(torch.cat(scores))
    return torch.stack(columns, dim=1)


def compare(quick: bool) -> tuple[float, float, float]:
    """Prompts a second of either, and their ratio."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    count = QUICK_PROMPTS if quick else PROMPTS
    prompts = torch.randint(13, VOCABULARY, (count, PROMPT), generator=torch.Generator().manual_seed(1)).tolist()
    model = base()
    taken: dict = {one_pass: [], five_passes: []}
    with torch.inference_mode():
        difference = (one_pass(model, prompts) - five_passes(model, prompts)).abs().max().item()
        assert difference <= 1e-5, f"scores differ by {difference}"
        for _ in range(REPEATS):
            for way, seconds in taken.items():
                started = time.perf_counter()
                way(model, prompts)
                seconds.append(time.perf_counter() - started)
    ours, peer = (count / min(taken[way]) for way in (one_pass, five_passes))
    return ours, peer, ours / peer


if __name__ == "__main__":
    report("score_actions", AIM, compare, __doc__)
