"""KuaiRand's published files: where they lie, the lines of a log as typed rows, and the tables of users and videos."""

import io
import re
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

from ..data.tables import dialect, need, no_gaps, read_table
from ..errors import DataError
from . import twins
from .parts import DROPPED, lines_of
from .raw import find_file, folders

LOG = (
    "user_id video_id date hourmin time_ms is_click is_like is_follow is_comment is_forward is_hate long_view "
    "play_time_ms duration_ms profile_stay_time comment_stay_time is_profile_enter is_rand tab"
).split()
# Rows equal in these four are one showing of a video, and one row here, the first: tab 6 logs many a showing twice,
# with another `hourmin`.
ROW = ["user_id", "video_id", "time_ms", "tab"]
# What happens after the video is shown can never be a feature; neither can the month-long statistics, which hold
# the test days (so the file video_features_statistic is not read at all). Read by the tests, which hold us to it.
LEAKS = (
    "is_click is_like is_follow is_comment is_forward is_hate long_view play_time_ms profile_stay_time "
    "comment_stay_time is_profile_enter"
).split()
# Features [ours: the paper does not list them]: the ids, the time of day, and what is known of user and video
# beforehand. Raw counts are left out where the publisher gives the same count in ranges.
USER = [
    "user_active_degree",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "register_days_range",
    "onehot_feat1",
    "onehot_feat2",
    "onehot_feat3",
]
CELL = r"-?0*[0-9]{1,18}"  # of a log: a whole number that 64 bits hold
VIDEO = ["author_id", "video_type", "upload_type", "music_type", "tag", "duration_class"]


def suffix(name: str) -> str:
    """How the names of the set's files end: "pure" for kuairand-pure."""
    return name.removeprefix("kuairand-")


def logs(folder: Path, name: str) -> list[Path]:
    """The standard logs of `name` in the folder, in order."""
    pattern = re.compile(rf"log_standard_\d.*_{suffix(name)}(_part\d+)?\.csv(\.gz)?", re.IGNORECASE)
    return sorted(p for p in folder.iterdir() if pattern.fullmatch(p.name))


def find(name: str) -> Path | None:
    """The folder that holds the standard logs of `name`, or None."""
    for folder in folders(name):
        for place in (folder, folder / "data", *sorted(folder.glob("KuaiRand*/data"))):
            if place.is_dir() and logs(place, name):
                return place
    return None


def raw_files(folder: Path, name: str) -> list[Path]:
    """All files that are read: the logs, then the user and video tables."""
    kinds = ("user_features", "video_features_basic")
    return [*logs(folder, name), *filter(None, (find_file(folder, f"{kind}_{suffix(name)}.csv") for kind in kinds))]


def tables(folder: Path, name: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What is known of users and of videos beforehand, one row each, sorted by id.

    Raises DataError, with file and line, for a table that is missing or malformed, or that repeats an id.
    """
    users = _features(folder, f"user_features_{suffix(name)}.csv", "user_id", USER)
    durations = [*(c for c in VIDEO if c != "duration_class"), "video_duration"]
    videos = _features(folder, f"video_features_basic_{suffix(name)}.csv", "video_id", durations)
    videos = videos.with_columns(
        pl.col("tag").cast(pl.String).str.split(",").list.first(),  # a quarter of the videos have several: the first
        duration_class=(pl.col("video_duration").clip(lower_bound=1).log(2) * 2).floor(),  # half octaves of ms
    )
    return users, videos.select("video_id", *VIDEO)


def _features(folder: Path, name: str, key: str, columns: list[str]) -> pl.DataFrame:
    """A user or video table, one row a key."""
    path = find_file(folder, name) or folder / name
    columns = [key, *columns]
    table = read_table(path, integers=[key], numbers=["video_duration"], columns=columns)
    no_gaps(table, [key], path)
    if repeated := table.height - table[key].n_unique():
        raise DataError(f"{path}: {repeated} rows repeat a {key}; each must stand once.")
    return table.select(columns).sort(key)


def header_of(path: Path) -> list[str]:
    """The names of a log's columns. Raises DataError where one of LOG is missing, or two are the same."""
    header = dialect(path)[2]
    need(header, LOG, path)
    return header


def read_log(text: bytes, header: list[str]) -> tuple[pl.DataFrame, pl.Series]:
    """Lines of a log → its rows with hashes of ROW and of all 19 columns, and a reason or null a line."""
    if (at_once := whole_numbers(text, header)) is not None:
        table, why = at_once, pl.repeat(None, len(at_once), dtype=pl.String, eager=True)
    else:  # not every line is as it should be
        lines = lines_of(text)
        fits = lines.str.contains(f"^{CELL}(?:,{CELL}){{{len(header) - 1}}}$")
        clean = whole_numbers("".join(f"{line}\n" for line in lines.filter(fits)).encode(), header)
        assert clean is not None  # of lines that fit, it is never None
        blank = pl.when(lines == "").then(pl.lit(f"{DROPPED}blank lines"))
        other = blank.when(~fits).then(pl.lit("not as many whole numbers as the header has columns"))
        table, why = clean, pl.select(other).to_series()
    clear = table["is_click"].is_in([0, 1])
    if not clear.all():
        why = why.scatter(why.is_null().arg_true().filter(~clear), "is_click is not 0 or 1")
    row = twins.hash_rows(table, ROW, np.zeros(len(table), np.uint64))
    whole = twins.hash_rows(table, [c for c in LOG if c not in ROW], row)
    table = table.select(*ROW, "is_click", hour=pl.col("hourmin") // 100, row=pl.Series(row), whole=pl.Series(whole))
    return table.filter(clear), why


def whole_numbers(text: bytes, header: list[str]) -> pl.DataFrame | None:
    """The lines as a table, parsed at once; None where one of them is not as many of CELL as the header has columns."""
    if not text:
        return pl.DataFrame(schema=dict.fromkeys(header, pl.Int64))
    if text.translate(None, b"-0123456789,\n"):  # nothing else may pass that the parser takes for a number: 0x1F
        return None
    try:
        arrow = pa_csv.read_csv(
            io.BytesIO(text),
            pa_csv.ReadOptions(column_names=header),
            pa_csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
            pa_csv.ConvertOptions(column_types=dict.fromkeys(header, pa.int64()), null_values=[]),
        )
    except pa.ArrowInvalid:
        return None
    table = pl.DataFrame(arrow)
    return table if max(table.max().row(0)) < 10**18 and min(table.min().row(0)) > -(10**18) else None
