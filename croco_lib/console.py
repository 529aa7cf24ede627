"""What the commands of all wings share: pairs on the command line, and what a figure was made with."""

import platform
import time
from importlib.metadata import version

from .errors import CrocoError, parse_value

VERSIONS = {name: version(name) for name in ("croco-lib", "torch", "numpy")}


def split_pairs(pairs: list[str], flag: str, form: str) -> list[tuple[str, str]]:
    """["a=1"] → [("a", "1")]. Raises CrocoError that names the flag and its form, also for a key given twice."""
    for pair in pairs:
        if "=" not in pair:
            raise CrocoError(f"{flag} takes {form}, not {pair!r}.")
    split = [(key, value) for key, _, value in (pair.partition("=") for pair in pairs)]
    if len(dict(split)) < len(split):
        raise CrocoError(f"{flag} has a key twice: {', '.join(pairs)}.")
    return split


def parse_pairs(pairs: list[str], flag: str) -> dict:
    """["a=1", "b=x"] → {"a": 1, "b": "x"}. Raises CrocoError as `split_pairs` does."""
    return {key: parse_value(value) for key, value in split_pairs(pairs, flag, "KEY=VALUE")}


def made_with() -> dict:
    """The versions and the date that a figure is printed with."""
    return {
        "versions": {"python": platform.python_version(), **VERSIONS, "polars": version("polars")},
        "date": time.strftime("%Y-%m-%d"),
    }
