"""From the committed tables to the scorecard. Nothing is trained or timed here."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from .claims import CLAIMS, Claim
from .intervals import Gap
from .rules import Check, cheap, unmeasured, verdict
from .stamp import refuse_others
from .studies import RESULTS, file_of, read_studies
from .tables import Tables

NOT_RUN = "not run yet"


def judge(folder: Path = RESULTS) -> pd.DataFrame:
    """Every check of every claim on every data set, tidy: number, claim, data, verdict, and the check's columns.

    A claim on a data set whose study has not been run stands there as "not run yet". Raises CrocoError for results that
    were made under other rules or with other versions.
    """
    rows, planned = [], read_studies()
    for claim in CLAIMS:
        for data in planned[claim.study]["data"] if claim.judge else ["cost" if claim.study else ""]:
            checks, said = [], NOT_RUN
            if claim.judge and runs_of(claim, data, folder):
                checks = list(claim.judge(Tables(claim.study, data, folder)))
                said = verdict(checks)
            elif claim.study == "cost" and (folder / "cost.csv").is_file():
                checks = list(cheap(read_cost(folder)))
                said = verdict(checks)
            elif not claim.study:
                said = verdict([])
            head = (claim.number, claim.text, data, said)
            rows += [(*head, *check) for check in checks] or [(*head, *unmeasured("")._replace(outcome=""))]
    return pd.DataFrame(rows, columns=["number", "claim", "data", "verdict", *Check._fields])


def p_value(gap: Gap) -> float:
    """How likely a difference at least as large, either way, is between equals: Student's t, two-sided.

    NaN where there is no error to compare it with: of one seed, or where the seeds do not vary.
    """
    if not 0 < gap.error < np.inf:
        return float("nan")
    return float(2 * stats.t.sf(abs(gap.value) / gap.error, gap.df))


def read_cost(folder: Path) -> pd.DataFrame:
    """What `croco study cost` left in the folder. Raises CrocoError for other rules or versions."""
    table = pd.read_csv(folder / "cost.csv")
    refuse_others(table, f"The figures in {folder / 'cost.csv'}", "Make them again: croco study cost")
    return table


def runs_of(claim: Claim, data: str, folder: Path) -> bool:
    """Whether the claim's studies have been run on the data."""
    return all(file_of(name, data, "runs", folder).is_file() for name in (claim.study, *claim.beside))


def scorecard(table: pd.DataFrame) -> pd.DataFrame:
    """A row a claim, a column a data set: the verdict in words. One that is of no data set stands in every column."""
    card = table.drop_duplicates(["number", "data"]).pivot(index=["number", "claim"], columns="data", values="verdict")
    of_none = card["cost"].fillna(card[""])
    data_sets = [data for data in table.data.unique() if data not in ("cost", "")]
    return card[data_sets].apply(lambda said: said.fillna(of_none)).reset_index()
