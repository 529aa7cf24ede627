"""Solutions are run inside their lessons (tests/test_solutions.py), not by themselves."""

collect_ignore_glob = ["*.ipynb"]
