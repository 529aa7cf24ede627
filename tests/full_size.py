"""The whole way at full size, on generated raw files: write, prepare, train one epoch; data/results/full_size.csv.

`python tests/full_size.py FOLDER` needs about 12 GB of disk and half an hour on one core. Each finished stage leaves a
file in FOLDER/stages, and is not run again.
"""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETS = {"kuairand-1k": (11_713_045, 1_000, 4_369_953), "ali-ccp": (10_000_000, 200_000, 1_000_000)}
COLUMNS = [
    "data",
    "what",
    "rows",
    "seconds",
    "rows a second",
    "peak MiB",
    "disk MiB",
    "test AUC",
    "command",
    "date",
    "versions",
]


def run(command: list[str], folder: Path) -> tuple[float, float, str]:
    """Seconds, peak MiB and standard output of the command, on one thread."""
    places = {"CROCO_DATA": str(folder / "raw"), "CROCO_PREPARED": str(folder / "prepared"), "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | places
    )
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return time.perf_counter() - start, usage.ru_maxrss / 1024, out


def stage(folder: Path, data: str, what: str) -> dict:
    """One row of the table: of `prepare`, or of training the model `what`."""
    path = folder / "stages" / f"{data}-{what}.json"
    if path.is_file():
        return json.loads(path.read_text())
    rows, users, items = SETS[data]
    if not (folder / "raw" / data).is_dir():
        run(
            [
                "-m",
                "croco_lib.study.raw",
                data,
                "--rows",
                str(rows),
                "--users",
                str(users),
                "--items",
                str(items),
                "--folder",
                str(folder / "raw" / data),
            ],
            folder,
        )
    command = (
        f"-m croco_lib data prepare {data}"
        if what == "prepare"
        else f"-m croco_lib fit {what} --data {data} --epochs 1 --batch-size 4096 --threads 1 --json"
    ).split()
    seconds, peak, out = run(command, folder)
    row = {
        "data": data,
        "what": what,
        "rows": rows,
        "seconds": round(seconds, 1),
        "peak MiB": round(peak),
        "command": "croco " + " ".join(command[2:]),
        "date": time.strftime("%Y-%m-%d"),
    }
    if what == "prepare":
        files = (folder / "prepared" / data).rglob("*.npy")
        row |= {"rows a second": round(rows / seconds), "disk MiB": round(sum(f.stat().st_size for f in files) / 2**20)}
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
    rows = [stage(Path(sys.argv[1]), data, what) for data in SETS for what in ("prepare", "shared-bottom", "crocodile")]
    with (ROOT / "data" / "results" / "full_size.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
