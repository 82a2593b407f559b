"""One side of `bench/grpo.py` in a process of its own: `train_rollouts.py SIDE STEPS`; prints one JSON object.

SIDE is `ours` or `trl`. Equal model, adapter, prompts, groups, reward, threads, precision (float32) and allocator. All answers
have 32 tokens: ours have no stop token, and `generate` is told to write so many at least.
"""

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import polars as pl  # noqa: E402
import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from transformers import PrinterCallback  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402

from bench.peers.train_pairs import PROMPT, VOCABULARY, adapted, tokenizer  # noqa: E402

GROUP, PROMPTS, ANSWER = 8, 8, 32  # prompts a step
ARGUMENTS = {
    "per_device_train_batch_size": GROUP * PROMPTS, "learning_rate": 1e-4, "lr_scheduler_type": "constant", "logging_steps": 1,
    "max_grad_norm": 1.0, "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "gradient_checkpointing": False,
    "use_cpu": True, "bf16": False, "seed": 3, "data_seed": 3, "output_dir": "/tmp/none", "dataloader_pin_memory": False,
    "loss_type": "dapo", "epsilon": 0.20, "epsilon_high": 0.28, "beta": 0.0, "num_generations": GROUP,
    "max_completion_length": ANSWER, "temperature": 1.0,
}  # fmt: skip


def prompts(count: int) -> list[list[int]]:
    """Prompts of 256 tokens."""
    return torch.randint(2, VOCABULARY, (count, PROMPT), generator=torch.Generator().manual_seed(5)).tolist()


def low_share(answer: list[int]) -> float:
    """The reward: the share of an answer's tokens that are in the lower half of the vocabulary."""
    return sum(token < VOCABULARY // 2 for token in answer) / len(answer)


def theirs(steps: int) -> GRPOTrainer:
    """TRL's trainer as it is; its prompts are token ids already."""

    class OfTokens(GRPOTrainer):
        def _tokenize_prompts(self, prompts):
            return [[int(token) for token in prompt.split()] for prompt in prompts], None, {}

    def reward(completion_ids, **unused):
        return [low_share(answer) for answer in completion_ids]

    rows = Dataset.from_dict({"prompt": [" ".join(map(str, prompt)) for prompt in prompts(steps * PROMPTS)]})
    config = GRPOConfig(**ARGUMENTS, max_steps=steps, generation_kwargs={"min_new_tokens": ANSWER})
    return OfTokens(model=adapted(), reward_funcs=reward, args=config, train_dataset=rows, processing_class=tokenizer())


def ours(steps: int) -> GRPOTrainer:
    """Ours, over rows that need no warehouse."""
    from tapehouse.recipes import parse_recipe
    from tapehouse.rewards import Reward
    from tapehouse.tokens import Vocabulary
    from tapehouse.training.grpo import RolloutTrainer
    from tapehouse.training.job import Job
    from tapehouse.training.progress import Progress
    from tapehouse.training.rewarded import Rewarded

    class Low(Rewarded):
        def rewards(self, row, answers):
            return [Reward("ok", low_share(answer), 0.0, 0.0) for answer in answers]

    recipe = parse_recipe(
        {
            "name": "bench", "method": "grpo", "description": "x", "data": {"stage": "structure"},
            "rollout": {"group": GROUP, "most_tokens": ANSWER}, "optimiser": {"learning_rate": 1e-4},
            "budget": {"steps": steps, "batch_size": GROUP * PROMPTS}, "prompt": {"objective": "patient"},
        },
        "bench",
    )  # fmt: skip
    asked = prompts(steps * PROMPTS)
    vocabulary = Vocabulary(tokenizer().backend_tokenizer, -1, 0, {}, 1024)
    rows = Low([{"prompt": str(number)} for number in range(len(asked))], asked, vocabulary, "structure")
    config = GRPOConfig(**ARGUMENTS, max_steps=steps)
    trainer = RolloutTrainer(recipe, rows, model=adapted(), args=config, processing_class=tokenizer())
    folder, none = Path(tempfile.mkdtemp()), pl.DataFrame()
    trainer.begin(Job(recipe, none, none, folder, folder, 3, Progress(None, lambda facts: None), folder / "checkpoints"))
    return trainer


def first_gradients(made: GRPOTrainer) -> tuple[float, list[float]]:
    """Loss of one fixed batch, and the norm of every adapter weight's gradient, with the adapter moved from its start."""
    draw = torch.Generator().manual_seed(9)
    torch.manual_seed(9)
    with torch.no_grad():
        for name, weight in made.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.02)
    count = GROUP * 2
    asked = torch.tensor(prompts(2)).repeat_interleave(GROUP, dim=0)
    answers = torch.randint(2, VOCABULARY, (count, ANSWER), generator=draw)
    lengths = torch.randint(8, ANSWER + 1, (count,), generator=draw)
    mask = (torch.arange(ANSWER) < lengths[:, None]).int()
    batch = {
        "prompt_ids": asked, "prompt_mask": torch.ones_like(asked), "completion_ids": answers * mask, "completion_mask": mask,
        "advantages": torch.randn(count, generator=draw), "num_items_in_batch": mask.sum(),
        "old_per_token_logps": torch.full((count, ANSWER), -6.2),
    }  # fmt: skip
    made.model.train()
    made.current_gradient_accumulation_steps = 1
    loss = made.compute_loss(made.model, batch)
    loss.backward()
    return loss.item(), [p.grad.norm().item() for n, p in sorted(made.model.named_parameters()) if p.grad is not None]


def main(side: str, steps: int) -> None:
    """Time the steps: answers drawn, rewarded and learnt from."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    make = {"ours": ours, "trl": theirs}[side]
    loss, gradients = first_gradients(make(1))
    made = make(steps)
    made.remove_callback(PrinterCallback)
    started = time.perf_counter()
    made.train()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    entries = [entry for entry in made.state.log_history if "reward" in entry]
    assert all(entry["completions/min_length"] == ANSWER for entry in entries)
    told = {"rewards": [entry["reward"] for entry in entries], "answers": steps * GROUP * PROMPTS}
    print(json.dumps({"seconds": seconds, "peak_mib": peak, "loss": loss, "gradients": gradients, **told}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
