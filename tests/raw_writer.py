"""Raw files as the publishers lay them out, any number of rows, with every irregularity that is known of them.

`python tests/raw_writer.py ali-ccp --rows 10_000_000 --folder …`. Clicks depend on hidden factors of user and item and
on the domain, so that a model can learn something. A seed gives the same bytes again.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import typer

BLOCK = 500_000  # rows made at a time
DOMAINS = (9351665, 9351666, 9351667)  # Ali-CCP's field 301; the third value is a guess
LOG = ("user_id video_id date hourmin time_ms is_click is_like is_follow is_comment is_forward is_hate long_view "
       "play_time_ms duration_ms profile_stay_time comment_stay_time is_profile_enter is_rand tab").split()
# A field's first id and how many it has: multi-valued (and their mean number of values a profile or row), then single.
MANY = {"109_14": (450_000, 5_000, 20), "110_14": (500_000, 100_000, 12), "127_14": (3_450_000, 40_000, 15),
        "150_14": (3_864_990, 50_000, 30)}
USER = {"121": (3_438_658, 97), "122": (3_438_755, 13), "124": (3_438_768, 3), "125": (3_438_771, 8),
        "126": (3_438_779, 3), "127": (3_438_782, 3), "128": (3_864_885, 3), "129": (3_864_888, 5)}
ITEM = {"206": (8_315_000, 5_000), "207": (8_400_000, 60_000), "216": (9_150_000, 30_000), "508": (9_355_000, 4_000),
        "509": (9_650_000, 40_000), "702": (9_700_000, 60_000), "853": (9_800_000, 20_000)}
MISSING = {"126": 0.59, "129": 0.37, "216": 0.27, "508": 0.3, "509": 0.5, "702": 0.4, "853": 0.4}


def tail(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """`size` draws of 0 … count − 1, the small numbers far more often (about 1 / rank)."""
    return np.minimum(np.exp(rng.random(size) * np.log(count + 1)) - 1, count - 1).astype(np.int64)


def clicks(rng, user, item, domain, rates, seed) -> np.ndarray:
    """0 or 1 for each row: a domain's rate, tilted by hidden factors of user and item (hashed, so of any number)."""
    def factor(ids, k):
        x = (ids + 1_000_003 * (seed + 1)).astype(np.uint64) + np.asarray(k).astype(np.uint64) * np.uint64(1 << 40)
        for shift, odd in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(odd)
        return (x >> np.uint64(40)).astype(np.float64) / 2**23 - 1

    logit = np.log(rates / (1 - rates))[domain] + 1.5 * factor(user, 1) + 1.5 * factor(item, 2)
    logit += 3 * factor(user, 3 + domain % 2) * factor(item, 5)
    return (rng.random(len(user)) < 1 / (1 + np.exp(-logit))).astype(np.int64)


def write_kuairand(folder: Path, name: str = "kuairand-pure", rows: int = 10_000, users: int = 200, videos: int = 500,
                   seed: int = 0, bad: dict[int, str] | None = None) -> Path:
    """KuaiRand's log, user and video tables. Doubles in tabs 5 and 6, some with another hourmin, a few
    of these with another label; durations of 0, −124, quoted ranges and tags with
    commas, values its documentation does not list, gaps. `bad` maps data rows to text that stands there instead.
    """
    folder.mkdir(parents=True, exist_ok=True)
    suffix, rng = name.removeprefix("kuairand-"), np.random.default_rng(seed)
    tabs, shares = np.arange(15), np.array([200, 640, 75, 5, 33, 2, 15, 4, 9, 5, 4, 2, 3, 1, 2]) / 1000
    rates = np.full(15, 0.3)
    rates[[0, 1, 2, 4, 6]] = 0.0857, 0.4939, 0.4805, 0.5960, 0.1486

    cut = lambda n, k: rng.integers(0, k, n)  # noqa: E731
    take = lambda n, words: np.array(words)[cut(n, len(words))]  # noqa: E731
    ids = np.arange(users)
    table = {"user_id": ids,
             "user_active_degree": take(users, ["full_active", "high_active", "day_new", "2_14_day_new",
                                                "30day_retention", "UNKNOWN"]),
             "is_lowactive_period": cut(users, 2), "is_live_streamer": take(users, [-124, 0, 1]),
             "is_video_author": cut(users, 2)}
    for count, words in (("follow_user_num", ["0", "(0,10]", "(10,50]", "500+"]),
                         ("fans_user_num", ["0", "[1,10)", "[100,1k)", "[100w,1000w)"]),
                         ("friend_user_num", ["0", "[1,5)", "[30,60)"]),
                         ("register_days", ["15-30", "181-365", "730+"])):
        table |= {count: cut(users, 1000), f"{count}_range": take(users, words)}
    table |= {f"onehot_feat{i}": cut(users, 2 + 3 * i) for i in range(18)}
    gaps = [pl.when(pl.lit(pl.Series(rng.random(users) > 0.02))).then(pl.col(c).cast(pl.Float64)).alias(c)
            for c in ("onehot_feat4", "onehot_feat12", "onehot_feat17")]
    pl.DataFrame(table).with_columns(gaps).write_csv(folder / f"user_features_{suffix}.csv")

    def video_block(first: int, n: int) -> pl.DataFrame:
        some = lambda share, c: pl.when(pl.lit(pl.Series(rng.random(n) > share))).then(pl.col(c)).alias(c)  # noqa: E731
        tags = cut(n, 60).astype(str)
        more = np.char.add(np.char.add(tags, ","), cut(n, 60).astype(str))
        return pl.DataFrame({
            "video_id": np.arange(first, first + n), "author_id": cut(n, max(1, videos // 5)),
            "video_type": np.where(rng.random(n) < 0.98, "NORMAL", "AD"), "upload_dt": "2022-04-10",
            "upload_type": take(n, ["ShortImport", "LongImport", "Web", "Kmovie", "UNKNOWN"]), "visible_status": 0.0,
            "video_duration": np.exp(rng.normal(10.3, 1, n)).round(), "server_width": 720.0, "server_height": 1280.0,
            "music_id": cut(n, 10**10), "music_type": take(n, [4.0, 8.0, 9.0, 11.0]),
            "tag": np.where(rng.random(n) < 0.25, more, tags)}).with_columns(
            some(0.05, "video_duration"), some(0.03, "music_type"), some(0.02, "tag"))

    with (folder / f"video_features_basic_{suffix}.csv").open("wb") as file:
        for first in range(0, videos, BLOCK):
            video_block(first, min(BLOCK, videos - first)).write_csv(file, include_header=not first)
    path = folder / f"log_standard_4_22_to_5_08_{suffix}.csv"
    with path.open("wb") as file:
        for first in range(0, rows, BLOCK):
            n = min(BLOCK, rows - first)
            user, video, tab = tail(rng, users, n), tail(rng, videos, n), rng.choice(tabs, n, p=shares)
            click = clicks(rng, user, video, tab, rates, seed)
            when = rng.integers(1_650_830_000_000, 1_652_000_000_000, n)
            block = pl.DataFrame(dict.fromkeys(LOG, 0) | {"user_id": user}).with_columns(
                video_id=video, date=pl.lit(20220425 + cut(n, 5)), hourmin=pl.lit(100 * cut(n, 24)),
                time_ms=pl.lit(when), is_click=pl.lit(click), long_view=pl.lit(click * cut(n, 2)),
                play_time_ms=pl.lit(click * cut(n, 90_000)), is_like=pl.lit(click * (rng.random(n) < 0.02)).cast(int),
                duration_ms=pl.lit(np.where(rng.random(n) < 0.016, 0, cut(n, 300_000))), tab=pl.lit(tab)).select(LOG)
            twin = np.isin(tab, (5, 6)) & (np.arange(n) + 1 < n)  # the next row says it again
            twin[1:] &= ~twin[:-1]
            index = np.arange(n)
            index[1:][twin[:-1]] -= 1
            again, other = index != np.arange(n), rng.random(n)
            block = block[index].with_columns(
                hourmin=pl.col("hourmin") + pl.lit(100 * (again & (other < 0.3))),
                is_click=(pl.col("is_click") - pl.lit((again & (other < 0.03)).astype(np.int64))).abs())
            if here := {r - first: text for r, text in (bad or {}).items() if first <= r < first + n}:
                lines = block.write_csv(include_header=not first).splitlines()
                for r, text in here.items():
                    lines[r + (not first)] = text
                file.write(("\n".join(lines) + "\n").encode())
            else:
                block.write_csv(file, include_header=not first)
    return folder


def feature(field: str, ids: np.ndarray, value) -> pl.Expr:
    """`field\\x02id\\x03value` for every row."""
    weight = pl.lit(value) if isinstance(value, str) else pl.lit(pl.Series(value)).cast(pl.String)
    return pl.concat_str(pl.lit(f"{field}\x02"), pl.lit(pl.Series(ids)).cast(pl.String), pl.lit("\x03"), weight)


def several(rng: np.random.Generator, field: str, ids: np.ndarray, lengths: np.ndarray) -> pl.Series:
    """The features of a multi-valued field, joined, a text a row (null: none). Weights real, as log(1 + n)."""
    weight = np.log1p(np.ceil(rng.exponential(4, len(ids)))).round(5)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    parts = pl.DataFrame({"row": rows}).select("row", text=feature(field, ids, weight))
    joined = parts.group_by("row", maintain_order=True).agg(pl.col("text").str.join("\x01"))
    every = pl.DataFrame({"row": np.arange(len(lengths))})
    return every.join(joined, on="row", how="left", maintain_order="left")["text"]


def lines_of(rng, parts: dict, counts: np.ndarray, heads: list[pl.Expr], n: int) -> pl.DataFrame:
    """`heads,feature_num,feature_list`, the fields in one of a few orders, drawn for each line."""
    names, order = list(parts), rng.integers(0, 4, n)
    table = pl.select(**parts).with_columns(order=pl.lit(pl.Series(order)))
    shuffles = [rng.permutation(names).tolist() for _ in range(4)]
    text = pl.coalesce(*(pl.when(pl.col("order") == k).then(pl.concat_str(s, separator="\x01", ignore_nulls=True))
                         for k, s in enumerate(shuffles)))
    return table.select(pl.concat_str(*heads, pl.lit(pl.Series(counts)), text, separator=","))


def write_aliccp(folder: Path, rows: int = 10_000, profiles: int = 500, items: int = 2_000, seed: int = 0,
                 impossible: float = 0.001, orphans: float = 0.001, bad: dict[int, str] | None = None,
                 values: float = 1.0, shares: tuple[float, ...] = (0.378, 0.0075, 0.6145)) -> Path:
    """Ali-CCP's four files, half of the rows train, half test; both have `profiles` common lines.

    `impossible`: the share of rows with click 0 and conversion 1; `orphans`: of rows whose common line is not there.
    `values` scales how many values the multi-valued fields have; `shares` are the domains'. `bad` maps
    train rows to text that stands there instead.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rates = np.array([0.04, 0.05, 0.035])
    for half, split in enumerate(("train", "test")):
        key = pl.Series([f"{k:016x}" for k in rng.integers(0, 2**63, profiles, np.uint64) * 2 + half])
        user = rng.permutation(profiles)  # field 101: the same people in both halves, under other indices
        with (folder / f"common_features_{split}.csv").open("wb") as file:
            for first in range(0, profiles, BLOCK // 10):
                n = min(BLOCK // 10, profiles - first)
                here = slice(first, first + n)
                parts, counts = {"101": feature("101", user[here] + 1, "1.0")}, np.ones(n, np.int64)
                for name, (base, size) in USER.items():
                    there = rng.random(n) >= MISSING.get(name, 0)
                    parts[name] = pl.when(pl.Series(there)).then(feature(name, base + tail(rng, size, n), "1.0"))
                    counts += there
                for name, (base, size, mean) in MANY.items():
                    lengths = rng.geometric(1 / (1 + mean * values), n) - 1
                    parts[name] = pl.lit(several(rng, name, base + tail(rng, size, lengths.sum()), lengths))
                    counts += lengths
                lines_of(rng, parts, counts, [pl.lit(key[here])], n).write_csv(
                    file, include_header=False, quote_style="never")
        total = rows - rows // 2 if half == 0 else rows // 2
        with (folder / f"sample_skeleton_{split}.csv").open("wb") as file:
            for first in range(0, total, BLOCK // 2):
                n = min(BLOCK // 2, total - first)
                who = np.sort(tail(rng, profiles, n))  # a profile's rows stand together
                item, domain = tail(rng, items, n), rng.choice(3, n, p=shares)
                click = clicks(rng, user[who], item, domain, rates, seed)
                conversion = np.where(rng.random(n) < impossible, 1 - click, click * (rng.random(n) < 0.01)).astype(int)
                index = pl.Series(np.where(rng.random(n) < orphans, -1, who))
                listed = pl.DataFrame({"i": np.arange(profiles), "key": key})
                known = pl.DataFrame({"i": index}).join(listed, on="i", how="left", maintain_order="left")["key"]
                parts = {"205": feature("205", 4_000_000 + item, "1.0"),
                         "301": feature("301", np.array(DOMAINS)[domain], "1.0")}
                counts = np.full(n, 2)
                for name, (base, size) in ITEM.items():
                    there = rng.random(n) >= MISSING.get(name, 0)
                    value = "1.0" if name in ("206", "207", "216") else np.log1p(tail(rng, 100, n) + 1).round(5)
                    parts[name] = pl.when(pl.Series(there)).then(feature(name, base + item * 7 % size, value))
                    counts += there
                lengths = rng.geometric(0.3, n) - 1
                parts["210"] = pl.lit(several(rng, "210", 9_040_000 + tail(rng, 70_000, lengths.sum()), lengths))
                heads = [pl.lit(pl.Series(np.arange(first, first + n) + 1)), pl.lit(pl.Series(click)),
                         pl.lit(pl.Series(conversion)), pl.lit(known.fill_null("0" * 15 + "f"))]
                table = lines_of(rng, parts, counts + lengths, heads, n)
                if half == 0 and (wrong := {r - first: t for r, t in (bad or {}).items() if first <= r < first + n}):
                    lines = table.to_series().to_list()
                    for r, text in wrong.items():
                        lines[r] = text
                    table = pl.DataFrame({"line": lines})
                table.write_csv(file, include_header=False, quote_style="never")
    return folder


def main(name: str, folder: Annotated[Path, typer.Option()], rows: Annotated[str, typer.Option()] = "10_000",
         users: Annotated[str, typer.Option(help="Users, or Ali-CCP's profiles.")] = "1_000",
         items: Annotated[str, typer.Option(help="Videos or items.")] = "5_000", seed: int = 0) -> None:
    """Write raw files of the layout NAME (kuairand-pure, -1k, -27k or ali-ccp) into --folder."""
    if name == "ali-ccp":
        write_aliccp(folder, int(rows), int(users), int(items), seed)
    else:
        write_kuairand(folder, name, int(rows), int(users), int(items), seed)


if __name__ == "__main__":
    typer.run(main)
