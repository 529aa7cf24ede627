"""The stamp of the rules: the hash of the files that judge, kept with every table and looked for when it is read."""

import hashlib
from pathlib import Path

import pandas as pd

from ..console import VERSIONS
from ..errors import CrocoError

FILES = ("rules.py", "intervals.py", "claims.py")
RULES_HASH = hashlib.sha256(b"".join((Path(__file__).parent / name).read_bytes() for name in FILES)).hexdigest()[:16]
# Today's hash, and earlier ones under which results were made. Since then the claims and this stamp got files of their
# own, two rules were written otherwise, claim 10 was worded anew, and two of the paper's figures were taken out that
# stood beside other differences than they speak of: every interval and verdict of `croco claims --full` stayed as it
# was. Any change to the three files makes a hash that is not in here.
SAME_RULES = {"1b33906c9128cfed": {"d467558ea4418e08", "b805e05060ef69d2", "332713f88c0ce852"}}
CHECKED = ("torch", "numpy")  # versions under which results count as today's


def release(text: str | None) -> str:
    """2.13.0+cpu and 2.13.0 are one release."""
    return (text or "").partition("+")[0]


def refuse_others(table: pd.DataFrame, subject: str, again: str) -> None:
    """Raise CrocoError for a table made under other rules or with other versions.

    `subject` names it and `again` says how to make it again.
    """
    made_under = set(table.rules) if "rules" in table else set()
    if not made_under or made_under - {RULES_HASH, *SAME_RULES.get(RULES_HASH, ())}:
        raise CrocoError(f"{subject} were made under other rules. {again}")
    for text in table.versions.unique():
        made = dict(part.split(": ") for part in text.split(", "))
        if other := [f"{p} {made.get(p)}" for p in CHECKED if release(made.get(p)) != release(VERSIONS[p])]:
            raise CrocoError(f"{subject} were made with {', '.join(other)}. {again}")
