"""The whole way at full size, on generated raw files: write, prepare, train one epoch; data/results/full_size.csv.

`python tests/full_size.py FOLDER` needs about 60 GB of disk and two hours on one core. Each finished stage leaves a
file in FOLDER/stages, and is not run again. KuaiRand-1K and ten million rows of Ali-CCP are prepared and train both
models; all of Ali-CCP is prepared and trains Shared-Bottom.
"""

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from croco_lib.console import VERSIONS

ROOT = Path(__file__).resolve().parents[1]
SETS = [  # data, rows, users (Ali-CCP's profiles in each half), items, and what is done with them
    ("kuairand-1k", 11_713_045, 1_000, 4_369_953, ("prepare", "shared-bottom", "crocodile")),
    ("ali-ccp", 10_000_000, 200_000, 1_000_000, ("prepare", "shared-bottom", "crocodile")),
    ("ali-ccp", 85_300_000, 800_000, 4_300_000, ("prepare", "shared-bottom")),
]
COLUMNS = [
    "data",
    "what",
    "rows",
    "seconds",
    "rows a second",
    "peak MiB",
    "own MiB",
    "disk MiB",
    "test AUC",
    "command",
    "date",
    "versions",
]


def run(command: str, folder: Path) -> tuple[float, dict, str]:
    """Seconds, MiB and standard output of `python -m command`, on one thread.

    The MiB are those at the peak, which count the pages of mapped files that the system keeps while there is room, and
    the process's own at theirs, looked at twice a second.
    """
    places = {"CROCO_DATA": str(folder / "raw"), "CROCO_PREPARED": str(folder / "prepared"), "OMP_NUM_THREADS": "1"}
    start, seen = time.perf_counter(), {"VmHWM": 0, "RssAnon": 0}
    process = subprocess.Popen(
        [sys.executable, "-m", *shlex.split(command)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | places,
    )
    while process.poll() is None:  # what it prints is a few lines, which the pipe holds
        told = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
        seen = {name: max(most, int(told.get(name, "0").split()[0])) for name, most in seen.items()}
        time.sleep(0.5)
    if process.returncode:
        sys.exit(f"{command} failed")
    mib = {"peak MiB": round(seen["VmHWM"] / 1024), "own MiB": round(seen["RssAnon"] / 1024)}
    return time.perf_counter() - start, mib, process.stdout.read()


def stage(home: Path, what: str, data: str, rows: int, users: int, items: int) -> dict:
    """One row of the table: of `prepare`, or of training the model `what`."""
    folder = home / f"{data}-{rows}"
    path = home / "stages" / f"{data}-{rows}-{what}.json"
    if path.is_file():
        return json.loads(path.read_text())
    if not (raw := folder / "raw" / data).is_dir():
        draft = raw.with_name("draft")  # so that files cut short by an interruption are not taken for whole ones
        shutil.rmtree(draft, ignore_errors=True)
        size = f"--rows {rows} --users {users} --items {items}"
        run(f"croco_lib.study.raw {data} {size} --folder {shlex.quote(str(draft))}", folder)
        draft.rename(raw)
    command = (
        f"data prepare {data}"
        if what == "prepare"
        else f"fit {what} --data {data} --epochs 1 --batch-size 4096 --threads 1 --json"
    )
    seconds, mib, out = run(f"croco_lib {command}", folder)
    row = {
        "data": data,
        "what": what,
        "rows": rows,
        "seconds": round(seconds, 1),
        **mib,
        "command": f"croco {command}",
        "date": time.strftime("%Y-%m-%d"),
    }
    if what == "prepare":
        files = (folder / "prepared" / data).rglob("*.npy")
        row |= {
            "rows a second": round(rows / seconds),
            "disk MiB": round(sum(f.stat().st_size for f in files) / 2**20),
            "versions": json.dumps(VERSIONS),
        }
    else:
        told = json.loads(out.splitlines()[-1])
        row |= {
            "rows": told["train_rows"],
            "rows a second": told["rows_per_second"],
            "test AUC": round(told["auc"], 4),
            "versions": json.dumps(told["versions"]),
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(row))
    return row


if __name__ == "__main__":
    rows = [stage(Path(sys.argv[1]), what, *sizes) for *sizes, stages in SETS for what in stages]
    with (ROOT / "data" / "results" / "full_size.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
