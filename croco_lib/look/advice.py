"""What follows from a first look, in words: warnings, and the command to go on with. [ours]"""

import shlex
from collections.abc import Iterator

from ..metrics import MIN_USERS

LEAK = 0.9  # AUC of one column alone, on held-out rows, from which it is suspected [ours]
SMALL = 100  # rows of the rarer label in a tenth of a domain, below which its AUC is noise (lesson 09)


def warnings_of(about: dict) -> Iterator[str]:
    """What a user should know before training, a sentence each."""
    if (label := about["roles"].get("label")) and about["columns"][label]["kind"] != "0 or 1":
        yield f"{label}: a label must be 0 or 1. Cut this column in two first, or name another with --label."
    for name, c in about["columns"].items():
        if c["scientific"]:
            yield (f"{name}: {c['scientific']} values like 1.2E+14: a spreadsheet has rounded them, the ids are lost.")
        if c["leading_zeros"]:
            yield f"{name}: {c['leading_zeros']} values with leading zeros; they are kept as text, 007 is not 7."
    if about["repeated_rows"]:
        yield (
            f"{about['repeated_rows']} rows repeat another in every column; a random split lets such twins leak "
            "into the test."
        )
    for name, auc in about.get("alone", {}).items():
        if auc > LEAK:
            yield f"{name}: alone it tells the label (AUC {auc}); was it written after the click? Leave it out."
    for name in _late(about):
        yield (
            f"{name}: where it is above 0, {about['above_zero'][name]:.0%} of the rows are clicks, of all rows "
            f"{about['click_rate']:.0%}; is it known only after the click? Leave it out."
        )
    parted = " (a sample, which separates most twins)" if about["rows_sampled"] < about["rows"] else ""
    for name, count in about["near_twins"].items():
        yield (
            f"{count} of {about['rows_sampled']} rows{parted} equal another in every column but {name}: one showing, "
            "logged twice? A random split lets such twins leak into the test."
        )
    small = [d for d, c in about.get("domains", {}).items() if c["rarer_label_in_test"] < SMALL]
    if small:
        yield f"domains too small to measure well: {', '.join(small[:10])}{' …' if len(small) > 10 else ''}."
    if (users := about.get("users_with_both_labels", MIN_USERS)) < MIN_USERS:
        yield f"only {users} users have both labels, in {about['rows_sampled']} rows: gAUC says little here."
    for value, share in about["giant"].items():
        yield (
            f"{about['roles']['user']}: {share:.0%} of the rows are of {value!r}; does it stand for all who are not "
            "known? A model and gAUC take it for one person. Leave those rows out, or give each visit an id."
        )
    domains = about.get("domains", {})
    if len({domain.strip().casefold() for domain in domains}) < len(domains):
        yield "domains that differ only in capitals or blanks are domains of their own. Write them alike first."
    for name in about["named_label"]:
        yield f"{name}: named like a label, but it does not hold 0 and 1. Make it these first."
    for role in ("label", "domain", "user", "item"):
        if (name := about["roles"].get(role)) is None:
            yield f"no column looks like the {role}; name it with --{role}."
        elif gaps := about["columns"][name]["gaps"]:
            yield f"{name}: {gaps} gaps, which `croco fit` refuses in the {role}. Leave those rows out."


def _late(about: dict) -> list[str]:
    """The columns above 0 where the click rate is at least halfway from its mean to 1, and that AUC has not found."""
    halfway = (1 + about.get("click_rate", 0)) / 2
    return [c for c, rate in about.get("above_zero", {}).items() if rate >= halfway and about["alone"][c] <= LEAK]


def next_command(about: dict) -> str:
    """The command that trains on the file: suspected leaks, spoiled and single-valued columns are left out."""
    roles, told, late = about["roles"], about.get("alone", {}), _late(about)
    fields = [
        n
        for n, c in about["columns"].items()
        if n not in roles.values()
        and "," not in n  # which parts the names that follow --fields
        and n not in about["named_label"]
        and told.get(n, 0) <= LEAK
        and n not in late
        and not c["scientific"]
        and c["kind"] not in ("numbers", "empty")
        and (c["distinct"] or 2) > 1
        and (c["distinct"] or about["rows"]) < about["rows"] / 2
    ]
    words = ["croco", "fit", "crocodile", "--data", about["file"]]
    for role in ("label", "domain", "user", "item"):
        words += [f"--{role}", roles.get(role, role.upper())]
    words += ["--fields", ",".join(fields)] if fields else []
    gaps = any(about["columns"][name]["gaps"] for name in fields)
    return shlex.join(words + (["--option", "missing=unknown"] if gaps else []))
