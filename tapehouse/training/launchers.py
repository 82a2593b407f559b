"""Where a training process runs: here, or elsewhere by the same command. The setting `TAPEHOUSE_LAUNCHER` names one of

- `local`: one process here. `local:N`: N of them by torchrun, which share every batch.
- `accelerate:FILE`: as a configuration of accelerate says, such as those in `models_registry/launch/` for several GPUs.
- `ssh:HOST` or `ssh:HOST:FOLDER`: the job's folder is sent to a machine that has this project in FOLDER (else in the same
  folder as here), and its output fetched.
- `kubernetes:TEMPLATE`: a Job of Kubernetes, from a YAML file whose volume holds the warehouse under the same path as here.
- `ray:ADDRESS`: a job of a Ray cluster whose machines see the warehouse under the same path as here.

Whatever the launcher, a run that was cut off goes on from its newest checkpoint when it is started again.
`python -m tapehouse.training.launchers LAUNCHER JOBDIR OUTDIR` runs the last three and passes their progress on.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import IO, Any, Final

from tapehouse.errors import TapehouseError
from tapehouse.settings import LAUNCHERS
from tapehouse.training.job import job_identity
from tapehouse.training.progress import sender

PROJECT: Final = Path(__file__).resolve().parents[2]
REMOTE_JOBS: Final = ".tapehouse/jobs"  # in the home folder of an SSH host
KINDS: Final = "the launchers are local, local:N, accelerate:FILE, ssh:HOST[:FOLDER], kubernetes:TEMPLATE and ray:ADDRESS"
Send = Callable[[dict[str, Any]], None]


def parse(launcher: str) -> tuple[str, str]:
    """Kind and what follows its colon. Raises TapehouseError for one that there is not."""
    if not re.fullmatch(LAUNCHERS, launcher):
        raise TapehouseError(f"TAPEHOUSE_LAUNCHER: {launcher!r}; {KINDS}")
    kind, _, rest = launcher.partition(":")
    return kind, rest


def command(jobdir: Path, outdir: Path, launcher: str = "local") -> list[str]:
    """The command that runs a job here, or has it run elsewhere."""
    kind, rest = parse(launcher)
    job = ["-m", "tapehouse.training", str(jobdir), str(outdir)]
    if kind == "local" and rest not in ("", "1"):
        together = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", rest]
        return [sys.executable, *together, *job, rest]
    if kind == "accelerate":
        import yaml

        file = PROJECT / rest
        if not file.is_file():
            raise TapehouseError(f"TAPEHOUSE_LAUNCHER: {launcher!r}: no file {file}")
        ranks = str(yaml.safe_load(file.read_text())["num_processes"])
        return [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(file), *job, ranks]
    if kind == "local":
        return [sys.executable, *job]
    return [sys.executable, "-m", "tapehouse.training.launchers", launcher, str(jobdir), str(outdir)]


def main(arguments: list[str]) -> int:
    """Run a job elsewhere; its progress goes to standard output as that of a process here does."""
    launcher, jobdir, outdir = arguments[0], Path(arguments[1]), Path(arguments[2])
    kind, rest = parse(launcher)
    with sender(sys.stdout) as send:
        {"ssh": over_ssh, "kubernetes": on_kubernetes, "ray": on_ray}[kind](rest, jobdir, outdir, send)
    return 0


def over_ssh(target: str, jobdir: Path, outdir: Path, send: Send) -> None:
    """Send a job's folder to a host, train there, fetch the output. `target` is HOST or HOST:FOLDER.

    Raises TapehouseError where a step fails; what the host has reached stays there, and the next run goes on from it.
    """
    host, _, folder = target.partition(":")
    project = folder or str(PROJECT)
    there = f"{REMOTE_JOBS}/{job_identity(jobdir)}"
    here = shlex.quote
    with tempfile.TemporaryFile() as packed:
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(jobdir, arcname=".")
        packed.seek(0)
        unpack = f"rm -rf {there}/job && mkdir -p {there}/job && tar -C {there}/job -xf -"
        _quiet(["ssh", host, unpack], f"sending {jobdir} to {host}", stdin=packed)
    variables = " ".join(f"{name}={here(value)}" for name, value in _environment(jobdir).items())
    python = f"{project}/.venv/bin/python"
    run = f'{here(python)} -m tapehouse.training "$there/job" "$there/out"'
    _stream(["ssh", host, f'there="$PWD/{there}" && cd {here(project)} && env {variables} {run}'], send, f"training on {host}")
    aside = outdir.with_name(f"{outdir.name}.partial-fetched")
    shutil.rmtree(aside, ignore_errors=True)
    with tempfile.TemporaryFile() as packed:
        _quiet(["ssh", host, f"tar -C {there}/out -cf - ."], f"fetching {there}/out from {host}", stdout=packed)
        packed.seek(0)
        with tarfile.open(fileobj=packed) as archive:
            archive.extractall(aside, filter="data")
    shutil.rmtree(outdir, ignore_errors=True)
    aside.rename(outdir)
    _quiet(["ssh", host, f"rm -rf {there}"], f"clearing {there} on {host}")


def on_kubernetes(template: str, jobdir: Path, outdir: Path, send: Send) -> None:
    """Apply a Job made of a template and follow it to its end.

    The template has ${name}, ${command} and ${environment}, the last two as JSON, which YAML reads.
    """
    name = f"tapehouse-{job_identity(jobdir)}"
    values = {
        "name": name,
        "command": json.dumps(["python", "-m", "tapehouse.training", str(jobdir), str(outdir)]),
        "environment": json.dumps([{"name": key, "value": value} for key, value in _environment(jobdir).items()]),
    }
    job = Template((PROJECT / template).read_text()).substitute(values)
    with tempfile.TemporaryFile("w+") as filled:
        filled.write(job)
        filled.seek(0)
        _quiet(["kubectl", "apply", "-f", "-"], f"kubectl apply of {template}", stdin=filled)
    ready = ["--for=condition=ready", "pod", f"--selector=job-name={name}", "--timeout=600s"]
    _quiet(["kubectl", "wait", *ready], f"waiting for a pod of job/{name}")
    _stream(["kubectl", "logs", "--follow", f"job/{name}"], send, f"following job/{name}")
    complete = ["--for=condition=complete", f"job/{name}", "--timeout=60s"]
    _quiet(["kubectl", "wait", *complete], f"waiting for the end of job/{name}")
    _quiet(["kubectl", "delete", f"job/{name}"], f"clearing job/{name}")


def on_ray(address: str, jobdir: Path, outdir: Path, send: Send) -> None:
    """Submit the command to a Ray cluster and follow it to its end."""
    variables = json.dumps({"env_vars": _environment(jobdir)})
    run = ["python", "-m", "tapehouse.training", str(jobdir), str(outdir)]
    submit = ["ray", "job", "submit", "--address", address, "--runtime-env-json", variables, "--", *run]
    _stream(submit, send, f"the job on {address}")


def _environment(jobdir: Path) -> dict[str, str]:
    from tapehouse.training.jobs import environment

    return environment(json.loads((jobdir / "job.json").read_text())["threads"])


def _stream(line: list[str], send: Send, doing: str) -> None:
    """Run a command; its lines of JSON are reports, the others go to standard error."""
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for said in process.stdout:
            if said.startswith("{"):
                send(json.loads(said))
            else:
                sys.stderr.write(said)
        _expect(process.wait(), doing)
    finally:
        if process.poll() is None:
            process.kill()


def _quiet(line: list[str], doing: str, stdin: IO | None = None, stdout: IO | None = None) -> None:
    _expect(subprocess.run(line, stdin=stdin, stdout=stdout or sys.stderr, check=False).returncode, doing)


def _expect(code: int, doing: str) -> None:
    if code != 0:
        raise TapehouseError(
            f"{doing} ended with code {code}; its errors stand above. Run again to go on from the last checkpoint"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
