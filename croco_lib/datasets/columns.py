"""From typed parts to the memory-mapped columns of a prepared set, in bounded memory.

The kept rows stream by twice: they are counted, which gives the vocabularies, then coded and written. The manifest
comes last.
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl
from tqdm.auto import tqdm

from ..errors import DataError, write_text, write_whole
from ..schema import SPLITS, UNKNOWN, Field, check_domains, fingerprint_of
from .bags import Lists, RowBags, TableBags
from .coders import Block, Coder, RowField, Table, TableField
from .store import BAG_DTYPES, DTYPES, create_splits, data_of, folder_of, sizes, state

BLOCK = 1 << 17  # rows counted or coded at a time: what is in work then stays in the processor's cache


@dataclass(frozen=True)
class KeptRows:
    """The rows of a raw data set that are kept, and what is to become of them.

    `rows()` streams them, `part` int8 [N] is their split; `fields` names each field and its role ("" for none). A field
    stands in the rows as a whole number, or in one of the `tables`, whose first column is a sorted key that stands in
    the rows. `domains` maps the domain's values to their names. `many` are multi-valued fields: those of a table with
    a stream of their lists, those of the rows with None.
    """

    name: str
    rows: Callable[[], Iterator[pl.DataFrame]]
    part: np.ndarray
    fields: dict[str, str]
    tables: list[pl.DataFrame]
    label: str
    domains: dict[int, str]
    many: dict[str, Lists | None] = field(default_factory=dict)

    def of_role(self, role: str) -> str:
        """The name of the field of this role."""
        return next(name for name, given in self.fields.items() if given == role)

    def coder(self, name: str, tables: list[Table], folder: Path, every: bool = False) -> Coder:
        """What counts and codes this field. `every`: in all rows, not only in those of train."""
        table = next((t for t in tables if name in t.frame.columns[1:]), None)
        if name in self.many:
            lists = self.many[name]
            if lists is None:
                return RowBags(name, folder)
            assert table is not None  # lists come with the table whose rows they belong to
            return TableBags(name, table, lists, folder)
        if table is not None:
            return TableField(name, table, every)
        return RowField(name, every, list(self.domains) if self.fields[name] == "domain" else None)


class Totals:
    """What the manifest tells of the rows: `rows` and `clicks` [3, S] by split and domain, `unknown` ids [3, F] by
    split and field, and which `users` [S, U] and `items` [S, I] a domain has met."""

    def __init__(self, domains: int, fields: int, users: int, items: int):
        self.rows, self.clicks, self.unknown = (np.zeros((3, n), int) for n in (domains, domains, fields))
        self.users, self.items = (np.zeros((domains, n), bool) for n in (users, items))

    def add(self, split: int, features: np.ndarray, domain: np.ndarray, clicked: np.ndarray) -> None:
        """Count a block of one split: its rows, clicks and unknown ids."""
        self.rows[split] += np.bincount(domain, minlength=self.rows.shape[1])
        self.clicks[split] += np.bincount(domain, clicked, minlength=self.rows.shape[1]).astype(int)
        self.unknown[split] += (features == UNKNOWN).sum(0)

    def write(
        self, files: Mapping[tuple[int, str], BinaryIO], split: np.ndarray, columns: Mapping[str, np.ndarray], item: int
    ) -> None:
        """Write a block into the files of each row's `split` [n], and count it; `item` is the place of that field."""
        self.users[columns["domain"], columns["user"]] = True
        self.items[columns["domain"], columns["features"][:, item]] = True
        for s in range(len(SPLITS)):
            here = np.flatnonzero(split == s)
            rows = {name: column[here] for name, column in columns.items()}
            self.add(s, rows["features"], rows["domain"], rows["label"])
            for name, column in rows.items():
                files[s, name].write(column.tobytes())

    def describe(self, names: tuple[str, ...]) -> dict[str, list]:
        """What `MultiDomainData.describe` says of the set."""
        rows = self.rows.sum(0)
        return {
            "domain": names,
            "rows": rows.tolist(),
            "share": (rows / rows.sum()).tolist(),
            "click_rate": (self.clicks.sum(0) / rows).tolist(),
            "users": self.users.sum(1).tolist(),
            "items": self.items.sum(1).tolist(),
        }


def write_columns(kept: KeptRows, notes: dict, options: dict, raw: list[Path], version: int = 1) -> Path:
    """Count, code and write the kept rows, with the figures of `from_frame` on their join; returns the folder.

    `notes`, `options` (`min_count` among them), the state of the `raw` files and the `version` of their reading go into
    the manifest. Raises DataError where a split lacks a domain, or a domain of train a class of the label.
    """
    if not len(kept.part):
        raise DataError(f"{kept.name}: no row is left of the domains {', '.join(kept.domains.values())}.")
    standing = folder_of(kept.name, options)
    folder = standing.with_name(f"{standing.name}.new")  # beside it: what stands there is good until this is whole
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tables = [Table(frame, kept.name) for frame in kept.tables]
    coders = {name: kept.coder(name, tables, folder) for name in kept.fields}
    people = kept.coder(kept.of_role("user"), tables, folder, every=True)  # gAUC keeps rare users apart
    assert kept.of_role("user") not in kept.many  # a row has one user
    with tqdm(
        total=2 * len(kept.part),
        desc=f"{kept.name}: counting and coding",
        unit="row",
        unit_scale=True,
        disable=not sys.stderr.isatty(),
    ) as bar:
        for block in blocks(kept, tables, bar):
            for table in tables:
                table.count(block)
            for coder in (*coders.values(), people):
                coder.count(block)
        for coder in coders.values():
            coder.keep(options["min_count"])
        people.keep(1)
        totals = write_rows(folder, kept, coders, people, blocks(kept, tables, bar))
    check_domains(kept.name, tuple(kept.domains.values()), totals.rows, totals.clicks)
    for name, coder in coders.items():
        values = coder.vocabulary.values.to_numpy()
        values = values if values.dtype != object else values.astype(str)
        write_whole(folder / f"field.{name}.npy", partial(save_array, values))
    notes = notes | notes_on(kept, tables, coders, totals, options["min_count"])
    fields = [Field(name, coder.vocabulary.size, kept.fields[name]) for name, coder in coders.items()]
    manifest = {"version": version, "options": options, "raw": state(raw), "notes": notes}
    manifest |= described(folder, fields, tuple(kept.domains.values()), list(kept.many), totals)
    gone = standing.with_name(f"{standing.name}.old")
    shutil.rmtree(gone, ignore_errors=True)
    if standing.exists():
        (standing / "manifest.json").unlink(missing_ok=True)  # from here on it is no finished set
        standing.rename(gone)  # aside, for a file system may refuse to remove what another process maps
    folder.rename(standing)
    write_text(standing / "manifest.json", json.dumps(manifest, indent=1, default=np.generic.item))
    shutil.rmtree(gone, ignore_errors=True)
    return standing


def notes_on(
    kept: KeptRows, tables: list[Table], coders: dict[str, Coder], totals: Totals, min_count: int
) -> dict[str, object]:
    """What a reader of the set is told of its rows, keys, gaps and unknown ids."""
    lengths = np.bincount(kept.part, minlength=3)
    return {
        "rows": len(kept.part),
        "split rows": dict(zip(SPLITS, lengths.tolist(), strict=True)),
        "rows whose key is not in its table": {table.key: int(table.seen[1, 0]) for table in tables},
        "unknown id 0": f"values seen fewer than {min_count} times in train, or not at all",
        "missing values given the unknown id": {name: c.gaps for name, c in coders.items() if c.gaps},
        "share of unknown ids": {
            s: dict(zip(coders, (u / max(1, n)).round(4).tolist(), strict=True))
            for s, u, n in zip(SPLITS, totals.unknown, lengths, strict=True)
        },
    }


def described(
    folder: Path, fields: Sequence[Field], domains: tuple[str, ...], many: list[str], totals: Totals
) -> dict[str, object]:
    """What the manifest says of the written columns: fields, domains, bags, fingerprint and the size of every file."""
    hashed = [folder / f"{s}.{c}.npy" for s in SPLITS for c in DTYPES]
    hashed += [folder / f"bag.{name}.{n}.npy" for name in many for n in BAG_DTYPES]
    return {
        "domains": domains,
        "bags": many,
        "fields": [{"name": f.name, "size": f.size, "role": f.role} for f in fields],
        "fingerprint": fingerprint_of(fields, domains, (block for path in hashed for block in data_of(path))),
        "describe": totals.describe(domains),
        "files": sizes(sorted(folder.glob("*.npy"))),
    }


def save_array(array: np.ndarray, path: Path) -> None:
    """The array as a .npy file of exactly this name."""
    with path.open("wb") as file:  # np.save would add .npy to the name
        np.save(file, array)


def blocks(kept: KeptRows, tables: list[Table], bar: tqdm) -> Iterator[Block]:
    """The kept rows, each block with its split and its places in the tables."""
    done = 0
    for frame in (piece for rows in kept.rows() for piece in rows.iter_slices(BLOCK)):
        yield Block(frame, kept.part[done : done + len(frame)], {t.key: t.keys.code(frame[t.key]) for t in tables})
        done += len(frame)
        bar.update(len(frame))


def write_rows(folder: Path, kept: KeptRows, coders: dict[str, Coder], people: Coder, rows: Iterator[Block]) -> Totals:
    """Code the blocks into the columns of the three splits, and the bags; returns what was counted on the way."""
    names = list(coders)
    domain_at, item_at = names.index(kept.of_role("domain")), names.index(kept.of_role("item"))
    item = coders[names[item_at]].vocabulary
    totals = Totals(len(kept.domains), len(names), people.vocabulary.size, item.size)
    lengths = np.bincount(kept.part, minlength=3).tolist()
    files = create_splits(folder, lengths, len(names), DTYPES)
    for block in rows:
        features = np.column_stack([coder.code(block) for coder in coders.values()])  # int32 [n, F]
        domain = features[:, domain_at].astype(np.int64) - 1
        clicked = block.frame[kept.label].to_numpy().astype(np.float32)
        user = people.code(block).astype(np.int64) - 1
        user[user < 0] = people.vocabulary.size - 1  # those without a known user are one group
        columns = {"features": features, "domain": domain, "label": clicked, "user": user}
        totals.write(files, block.split, columns, item_at)
    for file in files.values():
        file.close()
    for coder in coders.values():
        coder.close()
    return totals
