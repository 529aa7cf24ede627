"""From raw files of any size to memory-mapped columns, in bounded memory: read by part, count, code.

1. Every CHUNK bytes of a raw file become one typed Parquet part; a part that is there is not made again.
2. Rows are kept or dropped, split, and their values counted in train: the vocabularies.
3. The parts are coded into .npy columns. The manifest comes last: without it nothing looks finished.
"""

import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
from tqdm.auto import tqdm

from ..errors import ROOT, DataError, write_text, write_whole
from ..schema import SPLITS, UNKNOWN, Bag, Field, MultiDomainData, Split, check_domains, fingerprint_of
from .ids import as_ids

CHUNK = 1 << 26  # bytes of raw text to a part
QUOTED = 5  # bad lines shown
NONE = np.iinfo(np.int64).min  # stands for a missing whole number
DROPPED = "dropped: "  # begins the reason why a well-formed line is left out; any other reason makes a line bad
DTYPES = {"features": np.int32, "domain": np.int64, "label": np.float32, "user": np.int64}


def home(name: str) -> Path:
    """Where the prepared set is kept: under $CROCO_PREPARED, else data/prepared."""
    return Path(os.environ.get("CROCO_PREPARED", ROOT / "data" / "prepared")) / name


def sizes(files: list[Path]) -> dict[str, int]:
    """Bytes of each file by its name: what says whether a raw or a prepared set is still the same."""
    return {path.name: path.stat().st_size for path in files}


def prepared(name: str, options: dict, raw: list[Path], version: int = 1) -> MultiDomainData | str:
    """The prepared set, memory-mapped; or, in words, why it cannot stand for these options and raw files.

    `version` is that of the rules by which raw lines become rows, here and below.
    """
    folder = home(name)
    if not (folder / "manifest.json").is_file():
        return f"{name} is not prepared in {folder}."
    stored = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if stored.get("version", 1) != version:
        return f"{folder} was prepared by other rules, of another version of this program."
    if changed := [k for k, v in options.items() if stored["options"].get(k) != v]:
        return f"{folder} was prepared with {changed[0]}={stored['options'].get(changed[0])}."
    if raw and sizes(raw) != stored["raw"]:
        return f"{folder} was prepared from other raw files."
    files = [folder / file for file in stored["files"]]
    if not all(map(Path.is_file, files)) or sizes(files) != stored["files"]:
        return f"{folder} has lost a file, or one is cut short."

    def array(file: str) -> np.ndarray:
        return np.load(folder / f"{file}.npy", mmap_mode="r")

    bags = {f: Bag(*(array(f"bag.{f}.{part}") for part in ("offsets", "ids", "weights"))) for f in stored["bags"]}
    fields = tuple(Field(**f, values=array(f"field.{f['name']}"), bag=bags.get(f["name"])) for f in stored["fields"])
    domains = tuple(stored["domains"])
    splits = (Split(*(array(f"{s}.{column}") for column in DTYPES), domains) for s in SPLITS)
    return MultiDomainData(name, fields, domains, *splits, stored["notes"], stored=stored)


# ------------------------------------------------------------------------------------------------ raw text to parts


def lines_of(path: Path, k: int) -> pl.Series:
    """The lines that begin in the k-th CHUNK of the file."""
    with path.open("rb") as file:
        if k:
            file.seek(k * CHUNK - 1)
            file.readline()
        text = file.read(max(0, (k + 1) * CHUNK - file.tell()))
        if text and not text.endswith(b"\n"):
            text += file.readline()
    if not text:
        return pl.Series("line", [], pl.String)
    lines = pl.Series("line", [text.removesuffix(b"\n").decode(errors="replace")]).str.split("\n").explode()
    return lines.str.strip_suffix("\r") if b"\r" in text else lines


def read_raw(name: str, sources: list[tuple[Path, Callable]], max_bad_share: float, header: int = 0,
             version: int = 1) -> tuple[list[list[Path]], dict]:
    """Every source as typed parts, and notes on the lines. A source is a file and a reader of its lines.

    A reader takes lines and gives a table of those that are kept and, for every line, a reason or null. The first
    `header` lines of a file are left out. Raises DataError when more than `max_bad_share` of a file's lines are bad.
    """
    folder = home(name) / "parts"
    plan = json.dumps({"format": version, "chunk": CHUNK, "raw": [[str(p), p.stat().st_size, p.stat().st_mtime_ns]
                                                           for p, _ in sources]})
    if not (folder / "plan.json").is_file() or (folder / "plan.json").read_text(encoding="utf-8") != plan:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_text(folder / "plan.json", plan)
    bar = tqdm(total=sum(p.stat().st_size for p, _ in sources), desc=f"{name}: reading", unit="B", unit_scale=True,
               disable=not sys.stderr.isatty())
    parts, lines, why, bad = [], Counter(), Counter(), []
    for path, reader in sources:
        parts.append([])
        wrong = 0
        for k in range(-(-path.stat().st_size // CHUNK)):
            part = folder / f"{path.name}.{k:05}.parquet"
            if not part.is_file():
                text = lines_of(path, k)[0 if k else header :]
                table, reason = reader(text)
                faulty = (reason.is_not_null() & ~reason.str.starts_with(DROPPED).fill_null(False)).arg_true()
                stats = {"lines": len(text), "why": dict(reason.drop_nulls().value_counts().iter_rows()),
                         "wrong": len(faulty), "bad": [(int(i), reason[i], text[i][:160]) for i in faulty[:QUOTED]]}
                write_whole(part, lambda p, t=table, s=stats: t.write_parquet(p, metadata={"stats": json.dumps(s)}))
            stats = json.loads(pl.read_parquet_metadata(part)["stats"])
            bad += [f"{path.name}, line {lines[path.name] + i + header + 1}: {reason}: {text!r}"
                    for i, reason, text in stats["bad"]][: QUOTED - len(bad)]
            lines[path.name] += stats["lines"]
            why.update(stats["why"])
            wrong += stats["wrong"]
            parts[-1].append(part)
            bar.update(min(CHUNK, path.stat().st_size - k * CHUNK))
            last = (k + 1) * CHUNK >= path.stat().st_size
            if wrong > max_bad_share * lines[path.name] and (last or wrong > 1000):
                raise DataError(f"{path}: {wrong} of {lines[path.name]} lines are bad, more than the share of "
                                f"{max_bad_share:g} that is let pass (--max-bad-share). " + "; ".join(bad))
        if not lines[path.name]:
            raise DataError(f"{path}: this file has no lines of data.")
    bar.close()
    notes = {"rows read": dict(lines), "bad lines": {r: n for r, n in why.items() if not r.startswith(DROPPED)},
             "rows dropped": {r.removeprefix(DROPPED): n for r, n in why.items() if r.startswith(DROPPED)},
             "first bad lines": bad}
    return parts, notes


# ------------------------------------------------------------------------------------------------ parts to columns


def lookup(keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The place + 1 of every value in the sorted keys; 0 where it is not among them."""
    if not len(keys):
        return np.zeros(len(values), np.int64)
    span = int(keys[-1]) - int(keys[0]) + 1
    if span <= 4 * len(keys) + 1024:  # dense keys: read off a table
        table = np.zeros(span + 1, np.int64)
        table[keys - keys[0]] = np.arange(1, len(keys) + 1)
        return table[np.where((values >= keys[0]) & (values <= keys[-1]), values - keys[0], span)]
    at = np.minimum(np.searchsorted(keys, values), len(keys) - 1)
    return np.where(keys[at] == values, at + 1, 0)


def numbers(values: pl.Series) -> np.ndarray:
    return values.cast(pl.Int64).fill_null(NONE).to_numpy()


def tally(frames: list[pl.DataFrame], values: pl.Series, times: np.ndarray | None = None) -> None:
    """Add the values' counts to `frames` (value, n), which are merged whenever they outgrow their sum."""
    table = pl.DataFrame({"value": values, "n": np.ones(len(values), np.int64) if times is None else times})
    frames.append(table.drop_nulls("value").group_by("value").agg(pl.col("n").sum()))
    if sum(map(len, frames)) > 2 * len(frames[0]) + 1_000_000:
        frames[:] = [merged(frames)]


def merged(frames: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(frames).group_by("value").agg(pl.col("n").sum())


def often(counts: pl.DataFrame, min_count: int) -> pl.Series:
    """The vocabulary: values seen in train, at least `min_count` times, in order."""
    return counts.filter(pl.col("n") >= max(1, min_count))["value"].sort()


def create(path: Path, dtype, shape: tuple[int, ...]):
    """A .npy file open for its data. Written as a stream, so that its pages never count as the process's own."""
    file = path.open("wb")
    np.lib.format.write_array_header_1_0(
        file, {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape})
    return file


def data_of(path: Path) -> Iterator[bytes]:
    """The bytes of a .npy file after its header."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        while block := file.read(1 << 24):
            yield block


def code_columns(
    name: str,
    rows: Callable[[], Iterator[pl.DataFrame]],
    part: np.ndarray,
    fields: list[tuple[str, str]],
    tables: dict[str, pl.DataFrame],
    label: str,
    domains: dict[int, str],
    min_count: int,
    notes: dict,
    options: dict,
    raw: list[Path],
    many: dict[str, Callable[[], Iterator[tuple[np.ndarray | None, pl.DataFrame]]]] | None = None,
    version: int = 1,
) -> Path:
    """Count, code and write the kept rows; the same figures as `from_frame` on their join. Returns the folder.

    `rows()` streams the kept rows, `part` [N] their split (0, 1, 2); `fields` name each field and its role. A field
    stands in the rows as a whole number, or in one of the `tables` (by the column of rows that holds their sorted key).
    `many()[field]` streams the lists of ids and weights of a multi-valued field, and beside them the table's rows that
    they belong to (None: the field's lists stand in the rows; then each row is a bag).
    """
    folder, many = home(name), many or {}
    (folder / "manifest.json").unlink(missing_ok=True)
    columns = [column for column, _ in fields]
    roles = {role: column for column, role in fields if role}
    of_table = {c: key for key, table in tables.items() for c in table.columns[1:]}
    own = [c for c in columns if c not in of_table and c not in many]
    bar = tqdm(total=2 * len(part), desc=f"{name}: counting and coding", unit="row", unit_scale=True,
               disable=not sys.stderr.isatty())

    def blocks() -> Iterator[tuple[pl.DataFrame, np.ndarray, dict[str, np.ndarray]]]:
        done = 0
        for frame in rows():
            at = {key: lookup(keys[key], numbers(frame[key])) for key in tables}
            yield frame, part[done : done + len(frame)], at
            done += len(frame)
            bar.update(len(frame))

    # Count, in train; users and gaps in all rows. A table is counted by its rows: once a key, not once a row.
    keys = {key: numbers(table[key]) for key, table in tables.items()}
    counts, users, gaps, entries = {c: [] for c in [*own, *many]}, [], Counter(), Counter()
    seen = {key: np.zeros((2, len(k) + 1), np.int64) for key, k in keys.items()}  # rows of [train, all]
    for frame, which, at in blocks():
        train = pl.Series(which == 0)
        for c in own:
            tally(counts[c], frame[c].filter(train))
            gaps[c] += frame[c].null_count()
        if roles["user"] in own:
            tally(users, frame[roles["user"]])
        for key, place in at.items():
            seen[key] += np.stack([np.bincount(place[which == 0], minlength=len(keys[key]) + 1),
                                   np.bincount(place, minlength=len(keys[key]) + 1)])
        for c in many:
            if c not in of_table:
                tally(counts[c], frame.filter(train)[c].explode())
                gaps[c] += frame[c].null_count()
                entries[c] += int(frame[c].list.len().sum() or 0)
    coded = {}  # column of a table → int32 [rows of the table + 1]; row 0: no such key
    values = {c: often(merged(counts[c]), min_count).to_numpy() for c in own}
    values[roles["domain"]] = np.array(list(domains))
    for c, key in of_table.items():
        column = tables[key][c]
        gaps[c] = int(seen[key][1, 0] + seen[key][1, 1:][column.is_null().to_numpy()].sum())
        if c in many:
            coded[c] = np.append(0, column.fill_null(0).to_numpy()).astype(np.int32)  # the bag's number
            continue
        column = as_ids(column, name)
        found = []
        tally(found, column, seen[key][0, 1:])
        kept = often(merged(found), min_count)
        ids = pl.DataFrame({"value": kept, "id": np.arange(1, len(kept) + 1, dtype=np.int32)})
        joined = column.alias("value").to_frame().join(ids, on="value", how="left", maintain_order="left")
        coded[c] = np.append(np.int32(UNKNOWN), joined["id"].fill_null(UNKNOWN).to_numpy()).astype(np.int32)
        values[c] = kept.to_numpy()
    if roles["user"] in own:
        people = merged(users)["value"].sort().to_numpy()
    else:
        user_key = of_table[roles["user"]]
        everyone = numbers(tables[user_key][roles["user"]])
        people = np.unique(everyone[(seen[user_key][1, 1:] > 0) & (everyone != NONE)])
        user_of = np.append(-1, lookup(people, everyone) - 1)
    bag_files = {}
    for c, lists in many.items():
        if c not in of_table:
            bags = len(part) - gaps[c]
        else:
            bags = 0
            for place, frame in lists():
                length = frame[c].list.len().fill_null(0).to_numpy()
                tally(counts[c], frame[c].explode().drop_nulls(), np.repeat(seen[of_table[c]][0, place], length))
                entries[c] += int(length.sum())
                bags += int((length > 0).sum())
        values[c] = often(merged(counts[c]), min_count).to_numpy()
        lengths = {"offsets": (np.int64, bags + 2), "ids": (np.int32, n := entries[c] + 1), "weights": (np.float32, n)}
        bag_files[c] = [create(folder / f"bag.{c}.{n}.npy", t, (k,)) for n, (t, k) in lengths.items()]
        for file, first in zip(bag_files[c], (np.array([0, 1]), np.zeros(1, np.int32), np.ones(1, np.float32)),
                               strict=True):
            file.write(first.tobytes())
    ends = dict.fromkeys(many, 1)

    def put(c: str, frame: pl.DataFrame) -> None:
        frame = frame.filter(pl.col(c).is_not_null())
        length = frame[c].list.len().to_numpy().astype(np.int64)
        offsets = ends[c] + length.cumsum()
        ends[c] = int(offsets[-1]) if len(offsets) else ends[c]
        ids = lookup(values[c], numbers(frame[c].explode())).astype(np.int32)
        weights = frame[f"{c}.weight"].explode().to_numpy().astype(np.float32)
        for file, array in zip(bag_files[c], (offsets, ids, weights), strict=True):
            file.write(array.tobytes())

    for c, lists in many.items():
        if c in of_table:
            for _, frame in lists():
                put(c, frame)

    made = [Field(c, len(values[c]) + 1, role) for c, role in fields]
    lengths, S = np.bincount(part, minlength=3), len(domains)
    files = {(s, column): create(folder / f"{split}.{column}.npy", dtype, (int(lengths[s]), len(columns))
                                 if column == "features" else (int(lengths[s]),))
             for s, split in enumerate(SPLITS) for column, dtype in DTYPES.items()}
    total, clicks, unknown = np.zeros((3, S), int), np.zeros((3, S), int), np.zeros((3, len(columns)), int)
    item = columns.index(roles["item"])
    met = [np.zeros((S, n), bool) for n in (len(people) + 1, made[item].size)]
    bag_number = dict.fromkeys(many, 1)
    for frame, which, at in blocks():
        features = np.empty((len(frame), len(columns)), np.int32)
        for f, c in enumerate(columns):
            if c in of_table:
                features[:, f] = coded[c][at[of_table[c]]]
            elif c in many:
                there = frame[c].is_not_null().to_numpy()
                features[:, f] = np.where(there, bag_number[c] + there.cumsum() - 1, 0)
                bag_number[c] += int(there.sum())
                put(c, frame)
            else:
                features[:, f] = lookup(values[c], numbers(frame[c]))
        domain = features[:, columns.index(roles["domain"])].astype(np.int64) - 1
        clicked = frame[label].to_numpy().astype(np.float32)
        user = (lookup(people, numbers(frame[roles["user"]])) - 1 if roles["user"] in own else user_of[at[user_key]])
        user[user < 0] = len(people)  # those without a known user are one group
        met[0][domain, user] = True
        met[1][domain, features[:, item]] = True
        for s in range(3):
            here = np.flatnonzero(which == s)
            for column, array in zip(DTYPES, (features, domain, clicked, user), strict=True):
                files[s, column].write(array[here].tobytes())
            total[s] += np.bincount(domain[here], minlength=S)
            clicks[s] += np.bincount(domain[here], clicked[here], minlength=S).astype(int)
            unknown[s] += (features[here] == UNKNOWN).sum(0)
    for file in [*files.values(), *(f for group in bag_files.values() for f in group)]:
        file.close()
    bar.close()
    names = tuple(domains.values())
    check_domains(name, names, total, clicks)
    for c in columns:
        array = values[c] if values[c].dtype != object else values[c].astype(str)
        write_whole(folder / f"field.{c}.npy", lambda p, a=array: np.save(p.open("wb"), a))
    written = [folder / f"{s}.{c}.npy" for s in SPLITS for c in DTYPES]
    written += [folder / f"bag.{c}.{n}.npy" for c in many for n in ("offsets", "ids", "weights")]
    notes |= {"rows": len(part), "split rows": dict(zip(SPLITS, lengths.tolist(), strict=True)),
              "rows whose key is not in its table": {key: int(n[1, 0]) for key, n in seen.items()},
              "unknown id 0": f"values seen fewer than {min_count} times in train, or not at all",
              "missing values given the unknown id": {c: n for c in columns if (n := gaps[c])},
              "share of unknown ids": {s: dict(zip(columns, (u / max(1, n)).round(4).tolist(), strict=True))
                                       for s, u, n in zip(SPLITS, unknown, lengths, strict=True)}}
    rows_in = total.sum(0)
    manifest = {
        "version": version, "options": options, "raw": sizes(raw), "domains": names, "bags": list(many), "notes": notes,
        "fields": [{"name": f.name, "size": f.size, "role": f.role} for f in made],
        "fingerprint": fingerprint_of(made, names, (block for path in written for block in data_of(path))),
        "describe": {"domain": names, "rows": rows_in.tolist(), "share": (rows_in / len(part)).tolist(),
                     "click_rate": (clicks.sum(0) / rows_in).tolist(), "users": met[0].sum(1).tolist(),
                     "items": met[1].sum(1).tolist()},
        "files": sizes([*written, *(folder / f"field.{c}.npy" for c in columns)])}
    write_text(folder / "manifest.json", json.dumps(manifest, indent=1))
    return folder
