"""Training processes over Dagster Pipes: their messages reach the run's log, their progress the terminal too."""

from collections.abc import Callable

import dagster as dg


def launcher(context: dg.AssetExecutionContext, progress: Callable[[str], None]) -> Callable[[list[str], dict[str, str]], None]:
    """A function that runs a command with the Pipes session of this step, and raises TapehouseError when it fails."""

    def launch(command: list[str], env: dict[str, str]) -> None:
        from tapehouse.training.jobs import progress_line, run_process

        injector, reader = dg.PipesTempFileContextInjector(), dg.PipesTempFileMessageReader()
        with dg.open_pipes_session(context.op_execution_context, injector, reader) as session:
            run_process(command, env | session.get_bootstrap_env_vars(), lambda facts: progress(progress_line(facts)))

    return launch
