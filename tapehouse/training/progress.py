"""Progress of a training process: what is reported, filed in `metrics.jsonl` and sent on."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TextIO

SENT_EVERY: Final = 10  # steps; all of them are filed


class Progress:
    """Adds speed and remaining time to each report, files it, and sends on every tenth, the last and each validation.

    Args:
        file: `metrics.jsonl`, emptied. None files nothing, as in all processes of a run but the first.
        send: takes each report on.

    Attributes:
        history: the reports so far, those before a resumed run's checkpoint included.
    """

    def __init__(self, file: Path | None, send: Callable[[dict[str, Any]], None]) -> None:
        self.file, self.send = file, send
        self.history: list[dict[str, Any]] = []
        self._first: dict[str, float] = {}
        if file is not None:
            file.write_text("")

    def __call__(self, facts: dict[str, Any]) -> None:
        """Report: `step` and `steps`, numbers such as `loss`, and `tokens` so far for the speed."""
        now = time.monotonic()
        if "tokens" in facts:
            if not self._first:
                self._first = {"at": now, "step": facts["step"], "tokens": facts["tokens"]}
            done = facts["step"] - self._first["step"]
            if done > 0:
                seconds = now - self._first["at"]
                facts = facts | {
                    "tokens_per_s": round((facts["tokens"] - self._first["tokens"]) / seconds),
                    "eta_s": round(seconds / done * (facts["steps"] - facts["step"]), 1),
                }
        self._keep([facts])
        if facts["step"] % SENT_EVERY == 0 or facts["step"] == facts["steps"] or "loss" not in facts:
            self.send(facts)

    def resume(self, history: list[dict[str, Any]]) -> None:
        """Take up the reports of a run that was killed, up to the checkpoint from which this one goes on."""
        self._keep(history)

    def _keep(self, reports: list[dict[str, Any]]) -> None:
        self.history.extend(reports)
        if self.file is not None:
            with self.file.open("a") as metrics:
                metrics.writelines(json.dumps(facts) + "\n" for facts in reports)


@contextlib.contextmanager
def sender(stdout: TextIO) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that prints a report as a line of JSON, and logs it through Dagster Pipes where they started the process."""

    def to_stdout(facts: dict[str, Any]) -> None:
        print(json.dumps(facts), file=stdout, flush=True)

    if "DAGSTER_PIPES_CONTEXT" not in os.environ:
        yield to_stdout
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:

        def to_both(facts: dict[str, Any]) -> None:
            to_stdout(facts)
            pipes.log.info(json.dumps(facts))

        yield to_both
