"""KuaiRand's three files."""

from pathlib import Path

import numpy as np
import polars as pl

from ...data.world import TABS
from ...datasets.kuairand_files import LOG
from .draws import BLOCK, clicks, tail

TAB_SHARES = np.array([200, 640, 75, 5, 33, 2, 15, 4, 9, 5, 4, 2, 3, 1, 2]) / 1000  # of KuaiRand's rows
TAB_RATES = np.full(15, 0.3)
TAB_RATES[[int(tab.removeprefix("tab ")) for tab in TABS]] = [rate for _, rate in TABS.values()]


def write_kuairand(
    folder: Path,
    name: str = "kuairand-pure",
    rows: int = 10_000,
    users: int = 200,
    videos: int = 500,
    seed: int = 0,
    bad: dict[int, str] | None = None,
) -> Path:
    """KuaiRand's log, user and video tables.

    The log has doubles in tabs 5 and 6, some with another hourmin and a few of these with another label; the tables
    have durations of 0, −124, quoted ranges and tags with commas, values that the documentation does not list, and
    gaps. `bad` maps data rows to text that stands there instead.
    """
    folder.mkdir(parents=True, exist_ok=True)
    suffix, rng = name.removeprefix("kuairand-"), np.random.default_rng(seed)
    _users(rng, users).write_csv(folder / f"user_features_{suffix}.csv")
    with (folder / f"video_features_basic_{suffix}.csv").open("wb") as file:
        for first in range(0, videos, BLOCK):
            block = _videos(rng, first, min(BLOCK, videos - first), max(1, videos // 5))
            block.write_csv(file, include_header=not first)
    with (folder / f"log_standard_4_22_to_5_08_{suffix}.csv").open("wb") as file:
        for first in range(0, rows, BLOCK):
            block = _log(rng, min(BLOCK, rows - first), users, videos, seed)
            here = {r - first: text for r, text in (bad or {}).items() if first <= r < first + len(block)}
            if here:
                lines = block.write_csv(include_header=not first).splitlines()
                for r, text in here.items():
                    lines[r + (not first)] = text  # the first block's first line is the header
                file.write(("\n".join(lines) + "\n").encode())
            else:
                block.write_csv(file, include_header=not first)
    return folder


def _take(rng: np.random.Generator, count: int, words: list) -> np.ndarray:
    """`count` of these words, each as likely."""
    return np.array(words)[rng.integers(0, len(words), count)]


def _users(rng: np.random.Generator, users: int) -> pl.DataFrame:
    """KuaiRand's user table."""
    table = {
        "user_id": np.arange(users),
        "user_active_degree": _take(
            rng, users, ["full_active", "high_active", "day_new", "2_14_day_new", "30day_retention", "UNKNOWN"]
        ),
        "is_lowactive_period": rng.integers(0, 2, users),
        "is_live_streamer": _take(rng, users, [-124, 0, 1]),
        "is_video_author": rng.integers(0, 2, users),
    }
    for count, words in (
        ("follow_user_num", ["0", "(0,10]", "(10,50]", "500+"]),
        ("fans_user_num", ["0", "[1,10)", "[100,1k)", "[100w,1000w)"]),
        ("friend_user_num", ["0", "[1,5)", "[30,60)"]),
        ("register_days", ["15-30", "181-365", "730+"]),
    ):
        table |= {count: rng.integers(0, 1000, users), f"{count}_range": _take(rng, users, words)}
    table |= {f"onehot_feat{i}": rng.integers(0, 2 + 3 * i, users) for i in range(18)}
    gaps = [
        pl.when(pl.lit(pl.Series(rng.random(users) > 0.02))).then(pl.col(c).cast(pl.Float64)).alias(c)
        for c in ("onehot_feat4", "onehot_feat12", "onehot_feat17")
    ]
    return pl.DataFrame(table).with_columns(gaps)


def _videos(rng: np.random.Generator, first: int, n: int, authors: int) -> pl.DataFrame:
    """`n` rows of KuaiRand's video table, from this id on."""

    def with_gaps(share: float, column: str) -> pl.Expr:
        return pl.when(pl.lit(pl.Series(rng.random(n) > share))).then(pl.col(column)).alias(column)

    tags = rng.integers(0, 60, n).astype(str)
    more = np.char.add(np.char.add(tags, ","), rng.integers(0, 60, n).astype(str))
    return pl.DataFrame(
        {
            "video_id": np.arange(first, first + n),
            "author_id": rng.integers(0, authors, n),
            "video_type": np.where(rng.random(n) < 0.98, "NORMAL", "AD"),
            "upload_dt": "2022-04-10",
            "upload_type": _take(rng, n, ["ShortImport", "LongImport", "Web", "Kmovie", "UNKNOWN"]),
            "visible_status": 0.0,
            "video_duration": np.exp(rng.normal(10.3, 1, n)).round(),
            "server_width": 720.0,
            "server_height": 1280.0,
            "music_id": rng.integers(0, 10**10, n),
            "music_type": _take(rng, n, [4.0, 8.0, 9.0, 11.0]),
            "tag": np.where(rng.random(n) < 0.25, more, tags),
        }
    ).with_columns(with_gaps(0.05, "video_duration"), with_gaps(0.03, "music_type"), with_gaps(0.02, "tag"))


def _log(rng: np.random.Generator, n: int, users: int, videos: int, seed: int) -> pl.DataFrame:
    """`n` rows of KuaiRand's log, some of tabs 5 and 6 said twice."""
    user, video, tab = tail(rng, users, n), tail(rng, videos, n), rng.choice(15, n, p=TAB_SHARES)
    click = clicks(rng, user, video, tab, TAB_RATES, seed)
    when = rng.integers(1_650_830_000_000, 1_652_000_000_000, n)
    block = (
        pl.DataFrame(dict.fromkeys(LOG, 0) | {"user_id": user})
        .with_columns(
            video_id=video,
            date=pl.lit(20220425 + rng.integers(0, 5, n)),
            hourmin=pl.lit(100 * rng.integers(0, 24, n)),
            time_ms=pl.lit(when),
            is_click=pl.lit(click),
            long_view=pl.lit(click * rng.integers(0, 2, n)),
            play_time_ms=pl.lit(click * rng.integers(0, 90_000, n)),
            is_like=pl.lit(click * (rng.random(n) < 0.02)).cast(int),
            duration_ms=pl.lit(np.where(rng.random(n) < 0.016, 0, rng.integers(0, 300_000, n))),
            tab=pl.lit(tab),
        )
        .select(LOG)
    )
    twin = np.isin(tab, (5, 6)) & (np.arange(n) + 1 < n)  # the next row says it again
    twin[1:] &= ~twin[:-1]
    index = np.arange(n)
    index[1:][twin[:-1]] -= 1
    again, other = index != np.arange(n), rng.random(n)
    return block[index].with_columns(
        hourmin=pl.col("hourmin") + pl.lit(100 * (again & (other < 0.3))),
        is_click=(pl.col("is_click") - pl.lit((again & (other < 0.03)).astype(np.int64))).abs(),
    )
