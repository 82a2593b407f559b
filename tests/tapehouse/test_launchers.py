"""The same job through every launcher; `ssh`, `kubectl` and `ray` are programs that run what they get in another place."""

import json
import os
import sys
from pathlib import Path

import pytest

import tapehouse
from tapehouse.errors import TapehouseError
from tapehouse.training.jobs import run_job
from tapehouse.training.launchers import PROJECT, command, parse
from tapehouse.training.manifest import weights_digest
from tests.tapehouse.training_jobs import export_base, make_tokenizer

SSH = """#!/bin/sh
test "$1" = elsewhere || exit 255
shift
cd "$ELSEWHERE" && exec sh -c "$*"
"""
KUBECTL = f"""#!{sys.executable}
import os, subprocess, sys, yaml
log = os.environ["ELSEWHERE"] + "/pod.log"
if sys.argv[1] == "apply":
    pod = yaml.safe_load(sys.stdin)["spec"]["template"]["spec"]["containers"][0]
    env = dict(os.environ) | {{variable["name"]: variable["value"] for variable in pod["env"]}}
    sys.exit(subprocess.run(pod["command"], env=env, stdout=open(log, "w")).returncode)
elif sys.argv[1] == "logs":
    print("Defaulted container", flush=True)
    sys.stdout.write(open(log).read())
"""
RAY = f"""#!{sys.executable}
import os, json, sys
split = sys.argv.index("--")
variables = json.loads(sys.argv[sys.argv.index("--runtime-env-json") + 1])["env_vars"]
print("Job 'raysubmit_1' submitted", flush=True)
os.execvpe(sys.argv[split + 1], sys.argv[split + 1:], dict(os.environ) | variables)
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("job")
    make_tokenizer(root / "tokenizer")
    export_base(root / "job", root / "tokenizer")
    run_job(root / "job", root / "here")
    return root / "job"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    """Another machine's home folder, with the project in `project`, and programs that reach it."""
    python = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
    for name, text in {"ssh": SSH, "kubectl": KUBECTL, "ray": RAY, "python": python}.items():
        file = tmp_path / "programs" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
    home = tmp_path / "elsewhere"
    (home / "project" / ".venv" / "bin").mkdir(parents=True)
    (home / "project" / ".venv" / "bin" / "python").symlink_to(tmp_path / "programs" / "python")
    (home / "project" / "tapehouse").symlink_to(Path(tapehouse.__file__).parent)
    monkeypatch.setenv("PATH", f"{tmp_path / 'programs'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("ELSEWHERE", str(home))
    return home


@pytest.mark.parametrize("launcher", ["ssh", "kubernetes:models_registry/launch/kubernetes.yaml", "ray:http://head:8265"])
def test_a_job_elsewhere_gives_the_same_model(job, elsewhere, tmp_path, launcher):
    launcher = f"ssh:elsewhere:{elsewhere / 'project'}" if launcher == "ssh" else launcher
    reports = []
    manifest = run_job(job, tmp_path / "out", reports.append, launcher=launcher)
    assert manifest["digest"] == weights_digest(tmp_path / "out") == weights_digest(job.parent / "here")
    assert [report.get("step") for report in reports] == [10, 12, None] and reports[-1]["done"]
    assert not list(elsewhere.glob(".tapehouse/jobs/*"))  # what the host held is cleared once it is here


def test_a_host_that_fails_says_so_and_leaves_no_output(job, elsewhere, tmp_path):
    with pytest.raises(TapehouseError, match=r"sending .* to nowhere ended with code 255"):
        run_job(job, tmp_path / "out", launcher="ssh:nowhere")
    assert not (tmp_path / "out").exists()
    (elsewhere / "project" / ".venv" / "bin" / "python").unlink()
    with pytest.raises(TapehouseError, match=r"training on elsewhere ended with code 127.*Run again to go on"):
        run_job(job, tmp_path / "out", launcher=f"ssh:elsewhere:{elsewhere / 'project'}")
    assert list(elsewhere.glob(".tapehouse/jobs/*/job/job.json"))  # there for the next try


def test_the_command_of_each_launcher(tmp_path):
    job, out = tmp_path / "job", tmp_path / "out"
    assert command(job, out)[1:] == ["-m", "tapehouse.training", str(job), str(out)]
    shared = command(job, out, "local:4")[1:]
    assert shared[:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4"] and shared[-1] == "4"
    sharded = command(job, out, "accelerate:models_registry/launch/fsdp.yaml")
    assert sharded[2] == "accelerate.commands.launch" and sharded[-1] == "8"  # processes, that the job can count them
    assert command(job, out, "ssh:gpu-1")[2:4] == ["tapehouse.training.launchers", "ssh:gpu-1"]


@pytest.mark.parametrize("launcher", ["", "slurm", "local:0", "local:two", "ssh", "ssh:", "ray"])
def test_a_launcher_that_there_is_not_is_refused(launcher):
    with pytest.raises(TapehouseError, match="the launchers are local, local:N"):
        parse(launcher)


def test_a_configuration_that_is_missing_is_named(tmp_path):
    with pytest.raises(TapehouseError, match=r"no file .*none\.yaml"):
        command(tmp_path, tmp_path, "accelerate:none.yaml")


@pytest.mark.parametrize("file", sorted((PROJECT / "models_registry" / "launch").glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_configurations_name_their_launcher(file):
    said = file.read_text().splitlines()[0].removeprefix("# TAPEHOUSE_LAUNCHER=").split()[0]
    kind, rest = parse(said)
    assert PROJECT / rest == file
    assert kind == "kubernetes" or json.loads(command(Path("job"), Path("out"), said)[-1]) > 1
