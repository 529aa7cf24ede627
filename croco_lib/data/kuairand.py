"""KuaiRand (Pure, 1K, 27K) from its published CSV files. Gao et al., CIKM 2022, kuairand.com, CC BY-SA 4.0."""

import io
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

from ..errors import ROOT, DataError, known
from ..schema import MultiDomainData
from .frame import from_frame
from .prepare import code_columns, home, prepared, read_raw
from .splits import split_random, split_time
from .tables import dialect, find_file, need, no_gaps, plain, read_table

TABS = (0, 1, 2, 4, 6)  # the paper's five domains
RECORD = "https://zenodo.org/records/10439422"
ARCHIVES = {  # name: (archive, md5 as published; None where we do not know it)
    "kuairand-pure": ("KuaiRand-Pure.tar.gz", "0820331067a3784d9691136f772b35a7"),
    "kuairand-1k": ("KuaiRand-1K.tar.gz", "6b0b9c8222d67fcd4c676218edca3f1f"),
    "kuairand-27k": ("KuaiRand-27K.tar.gz", None),
}
LOG = ("user_id video_id date hourmin time_ms is_click is_like is_follow is_comment is_forward is_hate long_view "
       "play_time_ms duration_ms profile_stay_time comment_stay_time is_profile_enter is_rand tab").split()
# Rows equal in these four are one showing of a video, and one row here, the first: tab 6 logs many a showing twice,
# with another `hourmin`. Raise the version with the rule: what was prepared by an older one is then made anew.
ROW = ["user_id", "video_id", "time_ms", "tab"]
ROW_VERSION = 2
# What happens after the video is shown can never be a feature; neither can the month-long statistics, which hold
# the test days (so the file video_features_statistic is not read at all).
LEAKS = ("is_click is_like is_follow is_comment is_forward is_hate long_view play_time_ms profile_stay_time "
         "comment_stay_time is_profile_enter").split()
# Features [ours: the paper does not list them]: the ids, the time of day, and what is known of user and video
# beforehand. Raw counts are left out where the publisher gives the same count in ranges.
USER = ["user_active_degree", "is_live_streamer", "is_video_author", "follow_user_num_range", "fans_user_num_range",
        "register_days_range", "onehot_feat1", "onehot_feat2", "onehot_feat3"]
VIDEO = ["author_id", "video_type", "upload_type", "music_type", "tag", "duration_class"]
FEATURES = ["hour", *USER, *VIDEO]
AT_ONCE = 2 * 10**9  # bytes of log that are still read into memory unprepared
BUCKET = 50_000_000  # rows among which twins are looked for at a time


def roots() -> list[Path]:
    """Where raw data may lie: in $CROCO_DATA where it is set; else data/raw and a folder beside the project."""
    given = os.environ.get("CROCO_DATA")
    return [Path(given)] if given else [ROOT / "data" / "raw", ROOT.parent / "shared" / "data"]


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


def kuairand(name: str, split: str = "random", min_count: int = 5, seed: int = 0) -> MultiDomainData:
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
        raise DataError(f"{found} Its files are too large to be read at once: run `croco data prepare {name} "
                        f"--split {split} --min-count {min_count} --seed {seed}` first.")
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
    twins = _twins(*(np.array([len(t), len(t.filter(here))]) for t in (log, distinct, rows, odd)))
    log = rows.filter(here).with_columns(hour=pl.col("hourmin") // 100)

    users, videos = _tables(folder, suffix)
    table = log.join(users, on="user_id", how="left", maintain_order="left")
    table = table.join(videos, on="video_id", how="left", maintain_order="left")

    data = from_frame(table, label="is_click", domain="tab", user="user_id", item="video_id", fields=FEATURES,
                      domains={tab: f"tab {tab}" for tab in TABS}, split=split, time="time_ms", min_count=min_count,
                      missing="unknown", seed=seed, name=name)
    data.notes.update({
        "files": [p.name for p in files], "rows read": read, **twins,
        "rows of other tabs dropped": len(rows) - len(table),
    })
    return data


def _twins(read: np.ndarray, distinct: np.ndarray, rows: np.ndarray, odd: np.ndarray) -> dict[str, dict[str, int]]:
    """The notes on twins, from numbers of rows [2], of all tabs and of the five."""
    counts = {"exact duplicates dropped": read - distinct, "further twins dropped": distinct - rows,
              "further twins of another label": odd}
    return {what: dict(zip(("all tabs", "the five tabs"), n.tolist(), strict=True)) for what, n in counts.items()}


def _raw(folder: Path, name: str) -> list[Path]:
    """All files that are read: the logs, then the user and video tables."""
    suffix = name.removeprefix("kuairand-")
    tables = (find_file(folder, f"{kind}_{suffix}.csv") for kind in ("user_features", "video_features_basic"))
    return [*_logs(folder, suffix), *filter(None, tables)]


def _tables(folder: Path, suffix: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    users = _features(folder, f"user_features_{suffix}.csv", "user_id", USER)
    videos = _features(folder, f"video_features_basic_{suffix}.csv", "video_id",
                       [*(c for c in VIDEO if c != "duration_class"), "video_duration"])
    return users, videos.with_columns(
        pl.col("tag").cast(pl.String).str.split(",").list.first(),  # a quarter of the videos have several: the first
        duration_class=(pl.col("video_duration").clip(lower_bound=1).log(2) * 2).floor(),  # half octaves of ms
    )


def _hash(table: pl.DataFrame, columns: list[str], start: np.ndarray) -> np.ndarray:
    """64 bits of `start` and these columns of each row: uint64 [N]. Each step of splitmix64 mixes one column in."""
    mixed = start.copy()
    for column in columns:
        mixed += table[column].to_numpy().view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        for shift, odd in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(odd)
    return mixed


def _read_log(lines: pl.Series, header: list[str]) -> tuple[pl.DataFrame, pl.Series]:
    """Lines of a log → its rows with hashes of ROW and of all 19 columns, and a reason or null a line."""
    cell = r"-?\d{1,18}"
    fits = lines.str.contains(f"^{cell}(?:,{cell}){{{len(header) - 1}}}$")
    rows = fits.arg_true().to_numpy()
    text = pl.Series([",".join(header)]).append(lines.filter(fits)).str.join("\n").item()
    table = pa_csv.read_csv(
        io.BytesIO(f"{text}\n".encode()),
        convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(header, pa.int64()), include_columns=LOG))
    table = pl.from_arrow(table)
    row = _hash(table, ROW, np.zeros(len(rows), np.uint64))
    whole = _hash(table, [c for c in LOG if c not in ROW], row)
    clear = table["is_click"].is_in([0, 1])
    why = pl.select(pl.when(~fits).then(pl.lit("not as many whole numbers as the header has columns"))).to_series()
    why = why.scatter(rows[~clear.to_numpy()], "is_click is not 0 or 1")
    table = table.select("user_id", "video_id", "time_ms", "is_click", "tab", hour=pl.col("hourmin") // 100,
                         row=pl.Series(row), whole=pl.Series(whole))
    return table.filter(clear), why


def prepare(name: str, split: str = "random", min_count: int = 5, seed: int = 0, max_bad_share: float = 0.001) -> Path:
    """Raw files of any size to memory-mapped columns with the figures of `kuairand`; returns their folder.

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

    def buckets(name: str) -> Iterator[tuple[np.ndarray, pl.Series]]:
        """The rows in pieces of about BUCKET, and their values; equal values stand in one piece, in order."""
        values = column(name)
        count = 1 + len(values) // BUCKET
        for b in range(count):
            rows = np.flatnonzero(values % np.uint64(count) == b)
            yield rows, pl.Series(values[rows])

    distinct, first, odd = np.empty((3, len(here)), bool)
    for rows, whole in buckets("whole"):
        distinct[rows] = whole.is_first_distinct().to_numpy()
    label = column("is_click") == 1
    for rows, row in buckets("row"):
        first[rows] = row.is_first_distinct().to_numpy()
        both = pl.DataFrame({"row": row, "label": label[rows]})
        odd[rows] = both.select(pl.col("label") != pl.col("label").first().over("row")).to_series().to_numpy()
    odd &= distinct
    keep = here & first
    part = split_random(int(keep.sum()), seed) if split == "random" else split_time(column("time_ms")[keep])

    def rows_of() -> Iterator[pl.DataFrame]:
        done = 0
        for path in parts:
            frame = pl.read_parquet(path)
            done += len(frame)
            yield frame.filter(pl.Series(keep[done - len(frame) : done]))

    twins = _twins(*(np.array([n.sum(), (n & here).sum()]) for n in (np.ones_like(here), distinct, first, odd)))
    notes |= {"files": [path.name for path, _ in sources], **twins,
              "rows of other tabs dropped": int((first & ~here).sum()),
              "split": "random 80/10/10" if split == "random" else "by time_ms: first 80 % train, last 10 % test"}
    roles = {"user_id": "user", "video_id": "item", "tab": "domain"}
    return code_columns(name, rows_of, part, [(c, roles.get(c, "")) for c in (*roles, *FEATURES)],
                        {"user_id": users, "video_id": videos.select("video_id", *VIDEO)}, "is_click",
                        {tab: f"tab {tab}" for tab in TABS}, min_count, notes,
                        dict(split=split, min_count=min_count, seed=seed), _raw(folder, name), version=ROW_VERSION)


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
    return (f"{name} is not here. {fetch} {archive}{check} from {RECORD} and unpack it "
            f"into data/raw/{name}/, or let CROCO_DATA name the folder that holds it.")


def download(name: str) -> Path:
    """Fetch the published archive with pooch, check its md5, unpack it under data/raw/NAME, and return that folder."""
    archive, md5 = ARCHIVES[name]
    if md5 is None:
        raise DataError(f"The md5 of {archive} is not known here, so it is not fetched unchecked. {how_to_get(name)}")
    return fetch(name, archive, f"{RECORD}/files/{archive}?download=1", md5, how_to_get(name))


def fetch(name: str, archive: str, url: str, md5: str, otherwise: str) -> Path:
    """Fetch `url`, check its md5, unpack it (zip or tar) under data/raw/NAME; a DataError ends with `otherwise`."""
    import pooch

    target = ROOT / "data" / "raw" / name
    unpack = pooch.Unzip if archive.endswith(".zip") else pooch.Untar
    try:
        pooch.retrieve(url, known_hash=f"md5:{md5}", fname=archive, path=target, processor=unpack(extract_dir="."),
                       progressbar=True)
    except Exception as error:  # pooch passes on whatever requests, ssl, tarfile or zipfile raise
        reason = str(error).splitlines()[0]
        raise DataError(f"Could not fetch {archive}: {reason}\nWithout the network: {otherwise}") from error
    return target
