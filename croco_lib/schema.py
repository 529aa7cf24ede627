"""What every data set looks like to a model: fields, domains and three splits of coded rows."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .errors import DataError, known

if TYPE_CHECKING:  # the made world is itself described by this schema
    from .data.world import World

UNKNOWN = 0  # the id of whatever was rare or unseen in training, in every field
SPLITS = ("train", "valid", "test")
ID_TYPES = ("i1", "u1", "i2", "i4", "i8")  # torch adds up no other unsigned numbers


@dataclass(frozen=True)
class Field:
    """One categorical field. `size` counts its ids, the unknown id 0 among them.

    `role` is "user", "item", "domain" or "" ; `prior` fields feed Crocodile's gate.
    `values[i]` is the raw value behind id i + 1. A field with a `bag` is multi-valued: its column of `features` holds
    the number of the row's bag, and `size` counts the ids within.
    """

    name: str
    size: int
    role: str = ""
    values: np.ndarray | None = field(default=None, repr=False, compare=False)
    bag: "Bag | None" = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.role:
            known("role", self.role, ("user", "item", "domain"))

    @property
    def prior(self) -> bool:
        """Whether the field feeds Crocodile's gate."""
        return bool(self.role)


@dataclass(frozen=True)
class Split:
    """N coded rows. `features` int32 [N, F], `domain` int64 [N], `label` float32 [N] (0 or 1).

    `user` int64 [N] groups the rows for gAUC; unlike the user column of `features` it keeps rare users apart.
    `truth` float [N] is the true click probability where it is known (the made world).
    """

    features: np.ndarray
    domain: np.ndarray
    label: np.ndarray
    user: np.ndarray
    domains: tuple[str, ...]
    truth: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: np.ndarray | slice) -> "Split":
        """The same split with these rows only, in this order."""
        truth = None if self.truth is None else self.truth[rows]
        return Split(self.features[rows], self.domain[rows], self.label[rows], self.user[rows], self.domains, truth)


@dataclass(frozen=True)
class Bag:
    """A multi-valued field: bag b holds `ids` int32 and their raw `weights` float32 from offsets[b] to offsets[b + 1].

    No bag is empty: bag 0 holds the unknown id with weight 1 and stands for a missing field.
    """

    offsets: np.ndarray
    ids: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def read(self, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What bags b [N] hold, V values in all: ids [V], where each bag begins [N], shares of the weight [V]."""
        size = self.offsets[b + 1] - self.offsets[b]  # [N], never 0
        start = size.cumsum() - size
        position = np.repeat(self.offsets[b] - start, size) + np.arange(size.sum())  # in the field's arrays
        weight = self.weights[position]
        return self.ids[position], start, weight / np.maximum(np.add.reduceat(weight, start), 1e-12).repeat(size)


def check_domains(name: str, domains: tuple[str, ...], rows: np.ndarray, clicks: np.ndarray) -> None:
    """Raise DataError where a split lacks a domain, or train one of the labels there; `rows`, `clicks` int [3, S]."""
    if len(set(domains)) < len(domains) or not all(domains) or "all" in domains:
        raise DataError(
            f"{name}: domains need different names, none of them empty or 'all' (which names the "
            f"whole in every table), not {domains}."
        )
    for split, counts in zip(SPLITS, rows, strict=True):
        if not counts.any():
            raise DataError(f"{name}: the {split} split is empty. Give more rows or another split.")
        if not counts.all():
            missing = ", ".join(domains[i] for i in np.flatnonzero(counts == 0))
            raise DataError(
                f"{name}: domain {missing} has no rows in the {split} split. "
                "Leave the domain out or join it with another; a split by time may also be made at random."
            )
    if (one := (clicks[0] == 0) | (clicks[0] == rows[0])).any():
        names = ", ".join(domains[i] for i in np.flatnonzero(one))
        raise DataError(
            f"{name}: domain {names} has only one class of label in the train split, so there is nothing "
            "to learn there. Leave the domain out or join it with another."
        )


def fingerprint_of(fields: Iterable["Field"], domains: tuple[str, ...], buffers: Iterable) -> str:
    """A short hash of the fields, the domains and the bytes of every array."""
    digest = hashlib.sha256(repr([(f.name, f.size, f.role) for f in fields]).encode())
    digest.update(repr(domains).encode())
    for buffer in buffers:
        digest.update(buffer)
    return digest.hexdigest()[:16]


class Layout:
    """What a model is wired from: fields and domains, without any rows."""

    fields: tuple[Field, ...]
    domains: tuple[str, ...]

    def column(self, role: str) -> int:
        """The column of `features` that holds the field of this role. Raises CrocoError where none does."""
        return (roles := [f.role for f in self.fields]).index(known("role", role, [r for r in roles if r]))


@dataclass(frozen=True, eq=False)  # two are compared by their fingerprint
class MultiDomainData(Layout):
    """A data set ready for training. `notes` says how it was made: rows read, dropped and why, split, unknown ids.

    `world` holds the truth behind the made world, and is None for real data. `stored` is the manifest of a prepared
    set, which was checked when it was made and may be larger than memory; else None.
    """

    name: str
    fields: tuple[Field, ...]
    domains: tuple[str, ...]
    train: Split = field(repr=False)
    valid: Split = field(repr=False)
    test: Split = field(repr=False)
    notes: dict = field(default_factory=dict)
    world: "World | None" = field(default=None, repr=False)
    stored: dict | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.stored is not None:
            return
        splits, size = [getattr(self, name) for name in SPLITS], len(self.domains)
        sizes = [f.size if f.bag is None else len(f.bag) for f in self.fields]
        for name, split in zip(SPLITS, splits, strict=True):
            if not np.isin(split.label, (0, 1)).all():
                raise DataError(f"{self.name}: the {name} split has labels that are not 0 or 1.")
            if len(split.user) != len(split) or split.domains != self.domains:
                raise DataError(f"{self.name}: {name} has users of another number than its rows, or other domains.")
            for ids, beyond in ((split.features, sizes), (split.domain, size)):
                if ids.shape != (len(split), *np.shape(beyond)) or ids.dtype.str[1:] not in ID_TYPES:
                    raise DataError(
                        f"{self.name}: {name} needs whole numbers, [N, F] features and [N] domains, of type "
                        f"{', '.join(np.dtype(t).name for t in ID_TYPES)}, not {ids.dtype} {list(ids.shape)}."
                    )
                if len(ids) and (ids.min() < 0 or (ids.max(0) >= beyond).any()):
                    raise DataError(f"{self.name}: {name} has ids beyond the size of their field, or unlisted domains.")
        for f in self.fields:
            wrong = f.values is not None and len(f.values) != f.size - 1
            if f.bag is not None:
                empty, ids = (np.diff(f.bag.offsets) < 1).any(), f.bag.ids
                wrong = wrong or bool(empty or ids.min() < 0 or ids.max() >= f.size)
            if wrong:
                raise DataError(f"{self.name}: field {f.name!r} has values or bags that do not fit its {f.size} ids.")
        rows = np.stack([np.bincount(s.domain, minlength=size) for s in splits])
        clicks = np.stack([np.bincount(s.domain, s.label, minlength=size) for s in splits])
        check_domains(self.name, self.domains, rows, clicks)

    @property
    def fingerprint(self) -> str:
        """A short hash of every coded row and of the fields: equal data, equal fingerprint."""
        if self.stored is not None:
            return self.stored["fingerprint"]
        splits = [getattr(self, name) for name in SPLITS]
        arrays = [a for s in splits for a in (s.features, s.domain, s.label, s.user)]
        arrays += [a for f in self.fields if f.bag for a in (f.bag.offsets, f.bag.ids, f.bag.weights)]
        return fingerprint_of(self.fields, self.domains, (np.ascontiguousarray(a).view(np.uint8).data for a in arrays))

    def describe(self) -> pd.DataFrame:
        """Rows, share, click rate, users and known items (the rare ones count as one) of every domain, all splits."""
        if self.stored is not None:
            return pd.DataFrame(self.stored["describe"])
        parts = [getattr(self, name) for name in SPLITS]
        frame = pd.DataFrame(
            {
                "domain": pd.Categorical.from_codes(np.concatenate([p.domain for p in parts]), list(self.domains)),
                "label": np.concatenate([p.label for p in parts]),
                "user": np.concatenate([p.user for p in parts]),
                "item": np.concatenate([p.features[:, self.column("item")] for p in parts]),
            }
        )
        by = frame.groupby("domain", observed=False)
        table = by.agg(
            rows=("label", "size"), click_rate=("label", "mean"), users=("user", "nunique"), items=("item", "nunique")
        )
        table.insert(1, "share", table["rows"] / len(frame))
        return table.reset_index()
