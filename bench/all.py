"""Run every program in bench/, one after the other, and write docs/benchmarks.md: figures, machine and date."""

import argparse
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
NOT_PROGRAMS = {"all", "harness", "lake"}


def run(program: Path, quick: bool) -> dict:
    """The program's JSON, with its first line of documentation."""
    command = [sys.executable, str(program), "--json", *(["--quick"] if quick else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1]) | {"doc": program.read_text().split('"""')[1].strip().split("\n\n")[0]}


def machine() -> str:
    """Model and number of this machine's processors."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else 'unknown processor'}, {os.cpu_count()} cores"


def page(found: list[dict], quick: bool) -> str:
    """The page as Markdown."""
    how = "`make bench`" + (" with `--quick`: smaller inputs, rougher figures" if quick else "")
    lines = [
        "# Benchmarks",
        "",
        f"Measured by {how} on {machine()}, Python {sys.version.split()[0]}, {datetime.now(UTC):%Y-%m-%d}.",
        "A ratio is better when larger; a claim holds when its ratio reaches its aim. `bench/README.md` says how to add one.",
        "",
        "| program | ours | peer | ratio | aim | holds |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for one in found:
        holds = "yes" if one["holds"] else "**no**"
        lines.append(
            f"| `{one['name']}` | {one['ours']:.4g} | {one['peer']:.4g} | {one['ratio']:.2f} | {one['aim']} | {holds} |"
        )
    for one in found:
        lines += ["", f"**{one['name']}**: {' '.join(one['doc'].split())}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench/all.py", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller inputs, at most 30 s a program")
    quick = parser.parse_args().quick
    results = []
    for program in sorted(p for p in HERE.glob("*.py") if p.stem not in NOT_PROGRAMS):
        print(f"{program.stem} …", file=sys.stderr, flush=True)
        results.append(run(program, quick))
        print(" ".join(f"{k}={v}" for k, v in results[-1].items() if k != "doc"))
    PAGE.write_text(page(results, quick))
    print(f"wrote {PAGE}")
