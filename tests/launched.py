"""Python on several CPU processes, as `torchrun` starts them."""

import os
import subprocess
import sys
import warnings

from croco_lib.errors import ROOT


def launch(processes: int, *words, **environment) -> subprocess.CompletedProcess:
    """The words as a command of Python on so many processes; with one, there is no launcher."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, "-W", "ignore", *(launcher if processes > 1 else []), *map(str, words)]
    fixed = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    def run():
        env = {**os.environ, **fixed, **environment}
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, env=env)

    done = run()
    if "exitcode: -6)" in done.stderr:
        # Gloo ends a process by abort() when a connection breaks while it is made, as happens, seldom, on a machine
        # with much to do: once in some 300 launches (pytorch/gloo, issue 514). It is told in full, and run once more.
        warnings.warn(f"a process was aborted:\n{done.stderr}", stacklevel=2)
        done = run()
    return done
