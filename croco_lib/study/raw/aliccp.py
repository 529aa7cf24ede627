"""Ali-CCP's four files."""

from pathlib import Path

import numpy as np
import polars as pl

from .draws import BLOCK, clicks, tail

DOMAINS = (9351665, 9351666, 9351667)  # Ali-CCP's field 301; the third value is a guess
DOMAIN_RATES = np.array([0.04, 0.05, 0.035])  # clicks of their rows
IMPOSSIBLE = 0.001  # of the rows: click 0 and conversion 1
ORPHANS = 0.001  # of the rows: their common line is not there
# A field's first id and how many it has: multi-valued (and their mean number of values a profile or row), then single.
MANY = {
    "109_14": (450_000, 5_000, 20),
    "110_14": (500_000, 100_000, 12),
    "127_14": (3_450_000, 40_000, 15),
    "150_14": (3_864_990, 50_000, 30),
}
USER = {
    "121": (3_438_658, 97),
    "122": (3_438_755, 13),
    "124": (3_438_768, 3),
    "125": (3_438_771, 8),
    "126": (3_438_779, 3),
    "127": (3_438_782, 3),
    "128": (3_864_885, 3),
    "129": (3_864_888, 5),
}
ITEM = {
    "206": (8_315_000, 5_000),
    "207": (8_400_000, 60_000),
    "216": (9_150_000, 30_000),
    "508": (9_355_000, 4_000),
    "509": (9_650_000, 40_000),
    "702": (9_700_000, 60_000),
    "853": (9_800_000, 20_000),
}
MISSING = {"126": 0.59, "129": 0.37, "216": 0.27, "508": 0.3, "509": 0.5, "702": 0.4, "853": 0.4}


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
    text = pl.coalesce(
        *(
            pl.when(pl.col("order") == k).then(pl.concat_str(s, separator="\x01", ignore_nulls=True))
            for k, s in enumerate(shuffles)
        )
    )
    return table.select(pl.concat_str(*heads, pl.lit(pl.Series(counts)), text, separator=","))


def write_aliccp(
    folder: Path,
    rows: int = 10_000,
    profiles: int = 500,
    items: int = 2_000,
    seed: int = 0,
    bad: dict[int, str] | None = None,
    values: float = 1.0,
    shares: tuple[float, ...] = (0.378, 0.0075, 0.6145),
) -> Path:
    """Ali-CCP's four files, half of the rows train, half test; both have `profiles` common lines.

    `values` scales how many values the multi-valued fields have; `shares` are the domains'. `bad` maps train rows to
    text that stands there instead.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for half, split in enumerate(("train", "test")):
        key = pl.Series([f"{k:016x}" for k in rng.integers(0, 2**63, profiles, np.uint64) * 2 + half])
        user = rng.permutation(profiles)  # field 101: the same people in both halves, under other indices
        with (folder / f"common_features_{split}.csv").open("wb") as file:
            for first in range(0, profiles, BLOCK // 10):
                here = slice(first, min(first + BLOCK // 10, profiles))
                _common(rng, key[here], user[here], values).write_csv(file, include_header=False, quote_style="never")
        total = rows - rows // 2 if half == 0 else rows // 2
        with (folder / f"sample_skeleton_{split}.csv").open("wb") as file:
            for first in range(0, total, BLOCK // 2):
                n = min(BLOCK // 2, total - first)
                who = np.sort(tail(rng, profiles, n))  # a profile's rows stand together
                item, domain = tail(rng, items, n), rng.choice(3, n, p=shares)
                click = clicks(rng, user[who], item, domain, DOMAIN_RATES, seed)
                conversion = np.where(rng.random(n) < IMPOSSIBLE, 1 - click, click * (rng.random(n) < 0.01)).astype(int)
                index = pl.Series(np.where(rng.random(n) < ORPHANS, -1, who))
                listed = pl.DataFrame({"i": np.arange(profiles), "key": key})
                known = pl.DataFrame({"i": index}).join(listed, on="i", how="left", maintain_order="left")["key"]
                heads = [
                    pl.lit(pl.Series(np.arange(first, first + n) + 1)),
                    pl.lit(pl.Series(click)),
                    pl.lit(pl.Series(conversion)),
                    pl.lit(known.fill_null("0" * 15 + "f")),
                ]
                table = _skeleton(rng, heads, item, domain)
                if half == 0 and (wrong := {r - first: t for r, t in (bad or {}).items() if first <= r < first + n}):
                    lines = table.to_series().to_list()
                    for r, text in wrong.items():
                        lines[r] = text
                    table = pl.DataFrame({"line": lines})
                table.write_csv(file, include_header=False, quote_style="never")
    return folder


def _common(rng: np.random.Generator, key: pl.Series, user: np.ndarray, values: float) -> pl.DataFrame:
    """Ali-CCP's common lines of these profiles: what is known of the user, under the profile's key."""
    n = len(user)
    parts, counts = {"101": feature("101", user + 1, "1.0")}, np.ones(n, np.int64)
    for name, (base, size) in USER.items():
        there = rng.random(n) >= MISSING.get(name, 0)
        parts[name] = pl.when(pl.Series(there)).then(feature(name, base + tail(rng, size, n), "1.0"))
        counts += there
    for name, (base, size, mean) in MANY.items():
        lengths = rng.geometric(1 / (1 + mean * values), n) - 1
        parts[name] = pl.lit(several(rng, name, base + tail(rng, size, lengths.sum()), lengths))
        counts += lengths
    return lines_of(rng, parts, counts, [pl.lit(key)], n)


def _skeleton(rng: np.random.Generator, heads: list[pl.Expr], item: np.ndarray, domain: np.ndarray) -> pl.DataFrame:
    """Ali-CCP's skeleton lines with these heads (row, click, conversion, profile), items and domains."""
    n = len(item)
    parts = {"205": feature("205", 4_000_000 + item, "1.0"), "301": feature("301", np.array(DOMAINS)[domain], "1.0")}
    counts = np.full(n, 2)
    for name, (base, size) in ITEM.items():
        there = rng.random(n) >= MISSING.get(name, 0)
        value = "1.0" if name in ("206", "207", "216") else np.log1p(tail(rng, 100, n) + 1).round(5)
        parts[name] = pl.when(pl.Series(there)).then(feature(name, base + item * 7 % size, value))
        counts += there
    lengths = rng.geometric(0.3, n) - 1
    parts["210"] = pl.lit(several(rng, "210", 9_040_000 + tail(rng, 70_000, lengths.sum()), lengths))
    return lines_of(rng, parts, counts + lengths, heads, n)
