"""KuaiRand (Pure, 1K, 27K) from its published CSV files. Gao et al., CIKM 2022, kuairand.com, CC BY-SA 4.0."""

import os
import re
from pathlib import Path

import polars as pl

from ..schema import ROOT, DataError, MultiDomainData
from .frame import from_frame, need, no_gaps, read_table

TABS = (0, 1, 2, 4, 6)  # the paper's five domains
RECORD = "https://zenodo.org/records/10439422"
ARCHIVES = {  # name: (archive, md5 as published; None where we do not know it)
    "kuairand-pure": ("KuaiRand-Pure.tar.gz", "0820331067a3784d9691136f772b35a7"),
    "kuairand-1k": ("KuaiRand-1K.tar.gz", "6b0b9c8222d67fcd4c676218edca3f1f"),
    "kuairand-27k": ("KuaiRand-27K.tar.gz", None),
}
LOG = ("user_id video_id date hourmin time_ms is_click is_like is_follow is_comment is_forward is_hate long_view "
       "play_time_ms duration_ms profile_stay_time comment_stay_time is_profile_enter is_rand tab").split()
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


def roots() -> list[Path]:
    """Where raw data may lie: in $CROCO_DATA where it is set; else data/raw and a folder beside the project."""
    given = os.environ.get("CROCO_DATA")
    return [Path(given)] if given else [ROOT / "data" / "raw", ROOT.parent / "shared" / "data"]


def _logs(folder: Path, suffix: str) -> list[Path]:
    pattern = re.compile(rf"log_standard_\d.*_{suffix}(_part\d+)?\.csv")
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

    Exact duplicates (all 19 raw columns equal) are dropped first and counted in `notes`, as are other tabs.
    `split`: "random" 80/10/10 or "time" (the latest 10 % are the test). A value seen fewer than `min_count` times in
    train gets the unknown id 0, and so does a missing one. Raises DataError where files are missing or malformed.
    """
    folder = find(name)
    if folder is None:
        raise DataError(how_to_get(name))
    suffix = name.removeprefix("kuairand-")
    files = _logs(folder, suffix)
    logs = []
    for path in files:
        log = read_table(path, integers=LOG)
        need(log, LOG, str(path))
        no_gaps(log, LOG, str(path))
        logs.append(log.select(LOG))
    log = pl.concat(logs)
    read = len(log)
    here = pl.col("tab").is_in(TABS)
    twins = {"all tabs": read - log.n_unique(), "the five tabs": -log.filter(here).n_unique() + log.filter(here).height}
    log = log.unique(maintain_order=True)
    unique = len(log)
    log = log.filter(here).with_columns(hour=pl.col("hourmin") // 100)

    users = _features(folder / f"user_features_{suffix}.csv", "user_id", USER)
    videos = _features(folder / f"video_features_basic_{suffix}.csv", "video_id",
                       [*(c for c in VIDEO if c != "duration_class"), "video_duration"])
    videos = videos.with_columns(
        pl.col("tag").cast(pl.String).str.split(",").list.first(),  # a quarter of the videos have several: the first
        duration_class=(pl.col("video_duration").clip(lower_bound=1).log(2) * 2).floor(),  # half octaves of ms
    )
    table = log.join(users, on="user_id", how="left", maintain_order="left")
    table = table.join(videos, on="video_id", how="left", maintain_order="left")

    data = from_frame(table, label="is_click", domain="tab", user="user_id", item="video_id", fields=FEATURES,
                      domains={tab: f"tab {tab}" for tab in TABS}, split=split, time="time_ms", min_count=min_count,
                      missing="unknown", seed=seed, name=name)
    data.notes.update({
        "files": [p.name for p in files], "rows read": read, "exact duplicates dropped": twins,
        "rows of other tabs dropped": unique - len(table),
    })
    return data


def _features(path: Path, key: str, columns: list[str]) -> pl.DataFrame:
    """A user or video table, one row a key."""
    table = read_table(path, integers=[key], numbers=["video_duration"])
    columns = [key, *columns]
    need(table, columns, str(path))
    no_gaps(table, [key], str(path))
    if repeated := table.height - table[key].n_unique():
        raise DataError(f"{path}: {repeated} rows repeat a {key}; each must stand once.")
    return table.select(columns)


def how_to_get(name: str) -> str:
    """Where to get the data set and where to put it, in words."""
    archive, md5 = ARCHIVES[name]
    check = f" (md5 {md5})" if md5 else " (check the md5 on that page)"
    fetch = f"Run `croco data --get {name}`, or fetch" if md5 else "Fetch"
    return (f"{name} is not here. {fetch} {archive}{check} from {RECORD} and unpack it "
            f"into data/raw/{name}/, or let CROCO_DATA name the folder that holds it.")


def download(name: str) -> Path:
    """Fetch the published archive with pooch, check its md5, unpack it under data/raw/NAME, and return that folder."""
    import pooch

    archive, md5 = ARCHIVES[name]
    target = ROOT / "data" / "raw" / name
    if md5 is None:
        raise DataError(f"The md5 of {archive} is not known here, so it is not fetched unchecked. {how_to_get(name)}")
    try:
        pooch.retrieve(f"{RECORD}/files/{archive}?download=1", known_hash=f"md5:{md5}", fname=archive, path=target,
                       processor=pooch.Untar(extract_dir="."), progressbar=True)
    except Exception as error:  # pooch passes on whatever requests, ssl or tarfile raise
        reason = str(error).splitlines()[0]
        raise DataError(f"Could not fetch {archive}: {reason}\nWithout the network: {how_to_get(name)}") from error
    return target
