"""MovieLens-1M from its published files. Harper and Konstan, The MovieLens Datasets, ACM TiiS 2015, grouplens.org.

Its licence forbids redistribution, so it is read where the user put it. The setting is that of the Scenario-Wise-Rec
benchmark: domains are groups of age, label is a rating above 3. A user has one age, so domains share movies, not users.
"""

from pathlib import Path

import numpy as np
import polars as pl

from ..data.frame import from_frame
from ..data.tables import open_bytes
from ..errors import DataError
from ..schema import MultiDomainData
from .raw import fetch, find_file, folders

NAME, ARCHIVE = "movielens-1m", "ml-1m.zip"
URL, MD5 = "https://files.grouplens.org/datasets/movielens/ml-1m.zip", "c4d9eecfca2ab87c1945afe126590906"
HOW_TO_GET = (
    f"Run `croco data get {NAME}`, or fetch {ARCHIVE} (6 MB, md5 {MD5}) from {URL} and unpack it into "
    f"data/raw/{NAME}/, or let CROCO_DATA name the folder that holds it."
)
NUMBER = ("[0-9]{1,18}", "a whole number")
FILES = {  # file: its columns in order, each with the pattern of a whole value and the same in words
    "ratings.dat": {"user": NUMBER, "movie": NUMBER, "rating": ("[1-5]", "one of 1 to 5"), "time": NUMBER},
    "users.dat": {
        "user": NUMBER,
        "gender": ("[FM]", "F or M"),
        "age": ("1|18|25|35|45|50|56", "one of the classes 1, 18, 25, 35, 45, 50, 56"),
        "occupation": NUMBER,
        "zip": (".+", "a zip code"),
    },
    "movies.dat": {"movie": NUMBER, "title": (".+", "a title"), "genres": (r"[^|]+(?:\|[^|]+)*", "genres joined by |")},
}
DOMAINS = ("under 25", "25–34", "35 and over")
FIELDS = ("gender", "occupation", "zip", "genre")


def find() -> Path | None:
    """The folder with the raw files, or with the most of them; None where there is none of them."""
    places = [place for folder in folders(NAME, "ml-1m") for place in (folder, folder / "ml-1m")]

    def held(place: Path) -> int:
        return sum(find_file(place, file) is not None for file in FILES) if place.is_dir() else 0

    best = max(places, key=held, default=None)
    return best if best and held(best) else None


def read(path: Path) -> pl.DataFrame:
    """One of the three files as a table, a row a line: NUMBER columns Int64, all others text.

    Raises DataError with file, line and column for a missing file, another number of parts, or a value that does not
    fit; with the key for a user or movie that two lines of its own table give.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file. {HOW_TO_GET}")
    name = path.name.lower().removesuffix(".gz")
    columns = FILES[name]
    with open_bytes(path) as file:
        text = file.read().decode("latin-1").replace("\r\n", "\n").removesuffix("\n")
    lines = pl.Series("line", text.split("\n"))
    parts = lines.str.count_matches("::", literal=True) + 1
    if (bad := parts != len(columns)).any():
        row = int(bad.arg_true()[0])
        raise DataError(
            f"{path}, line {row + 1}: {parts[row]} parts between '::', not the {len(columns)} of "
            f"{'::'.join(columns)}. {int(bad.sum())} lines are like that; mend or remove them."
        )
    table = lines.str.split_exact("::", len(columns) - 1).struct.rename_fields(list(columns)).struct.unnest()
    for column, (pattern, words) in columns.items():
        if (bad := ~table[column].str.contains(f"^(?:{pattern})$")).any():
            row = int(bad.arg_true()[0])
            raise DataError(
                f"{path}, line {row + 1}: {column} is {table[column][row]!r}, not {words}. "
                f"{int(bad.sum())} lines are like that; mend or remove them."
            )
    table = table.with_columns(pl.col([c for c in columns if columns[c] is NUMBER]).cast(pl.Int64))
    key = table.columns[0]
    if name != "ratings.dat" and (twin := ~table[key].is_first_distinct()).any():
        row = int(twin.arg_true()[0])
        raise DataError(f"{path}, line {row + 1}: {key} {table[key][row]} stands there a second time.")
    return table


def load(split: str = "random", min_count: int = 5, seed: int = 0) -> MultiDomainData:
    """MovieLens-1M as MultiDomainData: a row a rating, label rating > 3, domains the ages under 25, 25–34, 35 and over.

    Fields: user, movie, age (the domain), gender, occupation, zip and the movie's first genre, so features are [N, 7].
    `split`: "random" 80/10/10, or "time" (the latest 10 % are the test) where the timestamps are not all the same.
    A value seen fewer than `min_count` times in train gets the unknown id 0. `notes` count the rows read of each file.

    Raises DataError where files are missing or malformed, or their timestamps lost and a time split asked for.
    """
    folder = find()
    if folder is None:
        raise DataError(how_to_get())
    ratings, users, movies = tables = [read(find_file(folder, file) or folder / file) for file in FILES]
    path = folder / "ratings.dat"
    for key, known_ones, file in (("user", users, "users.dat"), ("movie", movies, "movies.dat")):
        if (strange := ~ratings[key].is_in(known_ones[key].implode())).any():
            row = int(strange.arg_true()[0])
            raise DataError(
                f"{path}, line {row + 1}: {key} {ratings[key][row]} does not stand in {file}. "
                f"{int(strange.sum())} lines are like that."
            )
    if split == "time" and ratings["time"].n_unique() == 1:
        raise DataError(
            f"{path}: all timestamps are {ratings['time'][0]}; they are lost in this copy, so it cannot be "
            f"split by time. Use split=random, or the published files: {URL}."
        )
    years = users["age"].cast(pl.Int64)
    users = users.with_columns(age=pl.Series(np.array(DOMAINS)[np.digitize(years, (25, 35))].tolist()))
    movies = movies.select("movie", genre=pl.col("genres").str.split("|").list.first())
    table = ratings.join(users, on="user", how="left", maintain_order="left")
    table = table.join(movies, on="movie", how="left", maintain_order="left").with_columns(label=pl.col("rating") > "3")
    data = from_frame(
        table,
        label="label",
        domain="age",
        user="user",
        item="movie",
        fields=FIELDS,
        domains=DOMAINS,
        split=split,
        time="time" if split == "time" else None,
        min_count=min_count,
        seed=seed,
        name=NAME,
    )
    data.notes["rows read"] = {file: len(part) for file, part in zip(FILES, tables, strict=True)}
    return data


def how_to_get() -> str:
    """Where to get the data set and where to put it, in words."""
    return f"{NAME} is not here. {HOW_TO_GET}"


def download() -> Path:
    """Fetch the published archive, check its md5, unpack it under data/raw/movielens-1m, and return that folder."""
    return fetch(NAME, ARCHIVE, URL, MD5, how_to_get())
