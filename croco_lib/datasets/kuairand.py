"""KuaiRand (Pure, 1K, 27K) from its published CSV files. Gao et al., CIKM 2022, kuairand.com, CC BY-SA 4.0."""

import io
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

from ..data.frame import from_frame
from ..data.splits import split_random, split_time
from ..data.tables import dialect, need, no_gaps, read_table
from ..errors import DataError, known
from ..schema import MultiDomainData
from . import twins
from .columns import KeptRows, write_columns
from .parts import read_raw
from .raw import fetch, find_file, plain, roots
from .store import home, prepared

TABS = (0, 1, 2, 4, 6)  # the paper's five domains
RECORD = "https://zenodo.org/records/10439422"
ARCHIVES = {  # name: (archive, md5 as published; None where we do not know it)
    "kuairand-pure": ("KuaiRand-Pure.tar.gz", "0820331067a3784d9691136f772b35a7"),
    "kuairand-1k": ("KuaiRand-1K.tar.gz", "6b0b9c8222d67fcd4c676218edca3f1f"),
    "kuairand-27k": ("KuaiRand-27K.tar.gz", None),
}
LOG = (
    "user_id video_id date hourmin time_ms is_click is_like is_follow is_comment is_forward is_hate long_view "
    "play_time_ms duration_ms profile_stay_time comment_stay_time is_profile_enter is_rand tab"
).split()
# Rows equal in these four are one showing of a video, and one row here, the first: tab 6 logs many a showing twice,
# with another `hourmin`. Raise the version with the rule: what was prepared by an older one is then made anew.
ROW = ["user_id", "video_id", "time_ms", "tab"]
ROW_VERSION = 2
# What happens after the video is shown can never be a feature; neither can the month-long statistics, which hold
# the test days (so the file video_features_statistic is not read at all).
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
VIDEO = ["author_id", "video_type", "upload_type", "music_type", "tag", "duration_class"]
FEATURES = ["hour", *USER, *VIDEO]
ROLES = {"user_id": "user", "video_id": "item", "tab": "domain"}
AT_ONCE = 2 * 10**9  # bytes of log that are still read into memory unprepared


def _logs(folder: Path, suffix: str) -> list[Path]:
    pattern = re.compile(rf"log_standard_\d.*_{suffix}(_part\d+)?\.csv(\.gz)?", re.IGNORECASE)
    return sorted(p for p in folder.iterdir() if pattern.fullmatch(p.name))


def find(name: str) -> Path | None:
    """The folder that holds the standard logs of `name`, or None."""
    suffix = name.removeprefix("kuairand-")
    for root in filter(Path.is_dir, roots()):
        named = sorted(p for p in root.iterdir() if p.is_dir() and p.name.lower().startswith(name))
        for folder in (root, *named):
            for place in (folder, folder / "data", *sorted(folder.glob("KuaiRand*/data"))):
                if place.is_dir() and _logs(place, suffix):
                    return place
    return None


def load(name: str, split: str = "random", min_count: int = 5, seed: int = 0) -> MultiDomainData:
    """KuaiRand as MultiDomainData: the standard log, label `is_click`, domains the tabs 0, 1, 2, 4 and 6.

    Of twins, rows equal in user, video, time_ms and tab, the first is kept. `notes` counts those that were equal in all
    19 columns, the further twins, and how many of these have another label than the row kept; and rows of other tabs.
    `split`: "random" 80/10/10 or "time" (the latest 10 % are the test). A value seen fewer than `min_count` times in
    train gets the unknown id 0, and so does a missing one. Raises DataError where files are missing or malformed.

    A set that `croco data prepare` made with these options from these files is memory-mapped instead: the same data.
    """
    folder = find(name)
    raw = _raw(folder, name) if folder else []
    found = prepared(name, dict(split=split, min_count=min_count, seed=seed), raw, ROW_VERSION)
    if not isinstance(found, str):
        return found
    if sum(path.stat().st_size for path in raw) > AT_ONCE:
        raise DataError(
            f"{found} Its files are too large to be read at once: run `croco data prepare {name} "
            f"--split {split} --min-count {min_count} --seed {seed}` first."
        )
    if folder is None:
        raise DataError(how_to_get(name))
    suffix = name.removeprefix("kuairand-")
    files = _logs(folder, suffix)
    logs = []
    for path in files:
        log = read_table(path, integers=LOG)
        need(log, LOG, path)
        no_gaps(log, LOG, path)
        logs.append(log.select(LOG))
    log = pl.concat(logs)
    read, here = len(log), pl.col("tab").is_in(TABS)
    distinct = log.unique(keep="first", maintain_order=True)
    rows = distinct.unique(ROW, keep="first", maintain_order=True)
    odd = distinct.filter(pl.col("is_click") != pl.col("is_click").first().over(ROW))
    told = twins.notes(*(np.array([len(t), len(t.filter(here))]) for t in (log, distinct, rows, odd)))
    log = rows.filter(here).with_columns(hour=pl.col("hourmin") // 100)

    users, videos = _tables(folder, suffix)
    table = log.join(users, on="user_id", how="left", maintain_order="left")
    table = table.join(videos, on="video_id", how="left", maintain_order="left")

    data = from_frame(
        table,
        label="is_click",
        domain="tab",
        user="user_id",
        item="video_id",
        fields=FEATURES,
        domains={tab: f"tab {tab}" for tab in TABS},
        split=split,
        time="time_ms",
        min_count=min_count,
        missing="unknown",
        seed=seed,
        name=name,
    )
    data.notes.update(
        {
            "files": [p.name for p in files],
            "rows read": read,
            **told,
            "rows of other tabs dropped": len(rows) - len(table),
        }
    )
    return data


def _raw(folder: Path, name: str) -> list[Path]:
    """All files that are read: the logs, then the user and video tables."""
    suffix = name.removeprefix("kuairand-")
    tables = (find_file(folder, f"{kind}_{suffix}.csv") for kind in ("user_features", "video_features_basic"))
    return [*_logs(folder, suffix), *filter(None, tables)]


def _tables(folder: Path, suffix: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    users = _features(folder, f"user_features_{suffix}.csv", "user_id", USER)
    videos = _features(
        folder,
        f"video_features_basic_{suffix}.csv",
        "video_id",
        [*(c for c in VIDEO if c != "duration_class"), "video_duration"],
    )
    return users, videos.with_columns(
        pl.col("tag").cast(pl.String).str.split(",").list.first(),  # a quarter of the videos have several: the first
        duration_class=(pl.col("video_duration").clip(lower_bound=1).log(2) * 2).floor(),  # half octaves of ms
    )


def _read_log(lines: pl.Series, header: list[str]) -> tuple[pl.DataFrame, pl.Series]:
    """Lines of a log → its rows with hashes of ROW and of all 19 columns, and a reason or null a line."""
    cell = r"-?\d{1,18}"
    fits = lines.str.contains(f"^{cell}(?:,{cell}){{{len(header) - 1}}}$")
    rows = fits.arg_true().to_numpy()
    text = pl.Series([",".join(header)]).append(lines.filter(fits)).str.join("\n").item()
    table = pa_csv.read_csv(
        io.BytesIO(f"{text}\n".encode()),
        convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(header, pa.int64()), include_columns=LOG),
    )
    table = pl.from_arrow(table)
    row = twins.hash_rows(table, ROW, np.zeros(len(rows), np.uint64))
    whole = twins.hash_rows(table, [c for c in LOG if c not in ROW], row)
    clear = table["is_click"].is_in([0, 1])
    why = pl.select(pl.when(~fits).then(pl.lit("not as many whole numbers as the header has columns"))).to_series()
    why = why.scatter(rows[~clear.to_numpy()], "is_click is not 0 or 1")
    table = table.select(
        "user_id",
        "video_id",
        "time_ms",
        "is_click",
        "tab",
        hour=pl.col("hourmin") // 100,
        row=pl.Series(row),
        whole=pl.Series(whole),
    )
    return table.filter(clear), why


def prepare(name: str, split: str = "random", min_count: int = 5, seed: int = 0, max_bad_share: float = 0.001) -> Path:
    """Raw files of any size to memory-mapped columns with the figures of `load`; returns their folder.

    A line of a log that is not 19 whole numbers, or whose label is not 0 or 1, is left out and counted; more than
    `max_bad_share` of them in a file is a DataError. Twins are found by 64-bit hashes.
    """
    known("split", split, ("random", "time"))
    folder = find(name)
    if folder is None:
        raise DataError(how_to_get(name))
    suffix = name.removeprefix("kuairand-")
    sources = []
    for log in _logs(folder, suffix):
        path = plain(log, home(name) / "raw")
        header = dialect(path)[2]
        need(pl.DataFrame(schema=header), LOG, log)
        sources.append((path, partial(_read_log, header=header)))
    users, videos = (table.sort(table.columns[0]) for table in _tables(folder, suffix))
    groups, notes = read_raw(name, sources, max_bad_share, header=1, version=ROW_VERSION)
    parts = sum(groups, [])

    def column(name: str) -> np.ndarray:
        return np.concatenate([pl.read_parquet(p, columns=[name])[name].to_numpy() for p in parts])

    here = np.isin(column("tab"), TABS)
    distinct, first, odd = twins.mark(column("row"), column("whole"), column("is_click") == 1)
    keep = here & first
    part = split_random(int(keep.sum()), seed) if split == "random" else split_time(column("time_ms")[keep])
    told = twins.notes(*(np.array([n.sum(), (n & here).sum()]) for n in (np.ones_like(here), distinct, first, odd)))

    def rows() -> Iterator[pl.DataFrame]:
        done = 0
        for path in parts:
            frame = pl.read_parquet(path)
            done += len(frame)
            yield frame.filter(pl.Series(keep[done - len(frame) : done]))

    notes |= {
        "files": [path.name for path, _ in sources],
        **told,
        "rows of other tabs dropped": int((first & ~here).sum()),
        "split": "random 80/10/10" if split == "random" else "by time_ms: first 80 % train, last 10 % test",
    }
    kept = KeptRows(
        name,
        rows,
        part,
        ROLES | dict.fromkeys(FEATURES, ""),
        [users, videos.select("video_id", *VIDEO)],
        "is_click",
        {tab: f"tab {tab}" for tab in TABS},
    )
    return write_columns(
        kept, min_count, notes, dict(split=split, min_count=min_count, seed=seed), _raw(folder, name), ROW_VERSION
    )


def _features(folder: Path, name: str, key: str, columns: list[str]) -> pl.DataFrame:
    """A user or video table, one row a key."""
    path = find_file(folder, name) or folder / name
    table = read_table(path, integers=[key], numbers=["video_duration"])
    columns = [key, *columns]
    need(table, columns, path)
    no_gaps(table, [key], path)
    if repeated := table.height - table[key].n_unique():
        raise DataError(f"{path}: {repeated} rows repeat a {key}; each must stand once.")
    return table.select(columns)


def how_to_get(name: str) -> str:
    """Where to get the data set and where to put it, in words."""
    archive, md5 = ARCHIVES[name]
    check = f" (md5 {md5})" if md5 else " (check the md5 on that page)"
    fetch = f"Run `croco data get {name}`, or fetch" if md5 else "Fetch"
    return (
        f"{name} is not here. {fetch} {archive}{check} from {RECORD} and unpack it "
        f"into data/raw/{name}/, or let CROCO_DATA name the folder that holds it."
    )


def download(name: str) -> Path:
    """Fetch the published archive with pooch, check its md5, unpack it under data/raw/NAME, and return that folder."""
    archive, md5 = ARCHIVES[name]
    if md5 is None:
        raise DataError(f"The md5 of {archive} is not known here, so it is not fetched unchecked. {how_to_get(name)}")
    return fetch(name, archive, f"{RECORD}/files/{archive}?download=1", md5, how_to_get(name))
