"""Training processes over Dagster Pipes: their messages reach the run's log, their progress the terminal too."""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable

import dagster as dg

from tapehouse.errors import TapehouseError

ERROR_LINES = 15


def launcher(context: dg.AssetExecutionContext, progress: Callable[[str], None]) -> Callable[[list[str], dict[str, str]], None]:
    """A function that runs a command with the Pipes session of this step, and raises when it fails."""

    def launch(command: list[str], env: dict[str, str]) -> None:
        from tapehouse.training.jobs import progress_line

        with (
            dg.open_pipes_session(
                context.op_execution_context, dg.PipesTempFileContextInjector(), dg.PipesTempFileMessageReader()
            ) as session,
            tempfile.TemporaryFile("w+") as errors,
        ):
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **env, **session.get_bootstrap_env_vars()},
            )
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    if line.startswith("{"):
                        progress(progress_line(json.loads(line)))
                code = process.wait()
            finally:
                # A run that is cancelled must not leave its training behind.
                if process.poll() is None:
                    process.kill()
                    process.wait()
            if code != 0:
                errors.seek(0)
                tail = "\n".join(errors.read().splitlines()[-ERROR_LINES:])
                raise TapehouseError(f"{' '.join(command)} ended with code {code}; the end of its errors:\n{tail}")

    return launch
