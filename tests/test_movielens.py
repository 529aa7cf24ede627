import zipfile

import numpy as np
import pytest

import croco_lib
from croco_lib import CrocoError, DataError
from croco_lib.datasets import movielens, raw
from croco_lib.datasets.registry import DATASETS, DOWNLOAD, PREPARE, RAW, download, find
from croco_lib.schema import SPLITS

AGES = {1: 0, 18: 0, 25: 1, 35: 2, 45: 2, 50: 2, 56: 2}  # age: place of its domain
GENRES = ["Animation|Children's|Comedy", "Comedy", "Film-Noir|Thriller"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """14 users (two of each age) and 30 movies, each pair rated once: 420 ratings, movie after movie."""
    place = tmp_path / "MovieLens-1M-copy" / "ml-1m"
    place.mkdir(parents=True)
    users = [f"{u}::{'FM'[u % 2]}::{list(AGES)[u % 7]}::{u % 3}::0{u}-1" for u in range(1, 15)]
    movies = [f"{m}::Les Misérables: part {m} (1995)::{GENRES[m % 3]}" for m in range(1, 31)]
    pairs = [(u, m) for u in range(1, 15) for m in range(1, 31)]
    ratings = [f"{u}::{m}::{1 + (u + m) % 5}::{100 * m + u}" for u, m in pairs]
    for name, lines in (("users", users), ("movies", movies), ("ratings", ratings)):
        (place / f"{name}.dat").write_text("\n".join(lines) + "\n", encoding="latin-1")
    monkeypatch.setenv("CROCO_DATA", str(tmp_path))
    return place


def edit(path, line, change):
    lines = path.read_text(encoding="latin-1").split("\n")
    lines[line - 1] = change(lines[line - 1])
    path.write_text("\n".join(lines), encoding="latin-1")


def raw_values(data, split, column):
    """The raw values of a field, row by row; every id must be known."""
    place = [f.name for f in data.fields].index(column)
    return [str(data.fields[place].values[i - 1]) for i in getattr(data, split).features[:, place]]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_the_loader_agrees_with_the_raw_lines(folder, ending):
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", ending.encode()))
    assert find("movielens-1m") == folder
    data = croco_lib.load("movielens-1m", min_count=0)
    assert [f.name for f in data.fields] == ["user", "movie", "age", "gender", "occupation", "zip", "genre"]
    assert [f.role for f in data.fields[:3]] == ["user", "item", "domain"]
    assert data.domains == ("under 25", "25–34", "35 and over")
    assert data.notes["rows read"] == {"ratings.dat": 420, "users.dat": 14, "movies.dat": 30}
    seen = set()
    for split in SPLITS:
        part, values = getattr(data, split), (raw_values(data, split, f.name) for f in data.fields)
        rows = zip(part.label, part.domain, *values, strict=True)
        for label, domain, user, movie, age, gender, occupation, zipped, genre in rows:
            u, m = int(user), int(movie)
            assert label == (1 + (u + m) % 5 > 3)
            assert domain == AGES[list(AGES)[u % 7]] and age == data.domains[domain]
            assert (gender, occupation, zipped) == ("FM"[u % 2], str(u % 3), f"0{u}-1")
            assert genre == ("Animation", "Comedy", "Film-Noir")[m % 3]
            seen.add((u, m))
    assert len(seen) == 420 and [len(getattr(data, s)) for s in SPLITS] == [336, 42, 42]


def test_options(folder):
    first, again, other = (croco_lib.load("movielens-1m", seed=s) for s in (0, 0, 1))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert (croco_lib.load("movielens-1m", min_count=1000).train.features[:, 0] == 0).all()
    with pytest.raises(CrocoError, match="Unknown option of movielens-1m"):
        croco_lib.load("movielens-1m", multi="last")
    with pytest.raises(CrocoError, match="Unknown split"):
        croco_lib.load("movielens-1m", split="age")


def test_a_time_split_needs_timestamps(folder):
    by_time = croco_lib.load("movielens-1m", split="time", min_count=0)
    assert max(map(int, raw_values(by_time, "train", "movie"))) == 24
    assert not by_time.test.features[:, 1].any()  # movies 28 to 30, the last ones rated, are new there
    path = folder / "ratings.dat"
    path.write_text("\n".join(line.rsplit("::", 1)[0] + "::0" for line in path.read_text().splitlines()))
    with pytest.raises(DataError, match="all timestamps are 0; they are lost in this copy"):
        croco_lib.load("movielens-1m", split="time")
    assert len(croco_lib.load("movielens-1m").train) == 336


@pytest.mark.parametrize(
    ("file", "line", "change", "words"),
    [
        ("ratings.dat", 7, lambda s: s.rsplit("::", 1)[0], "line 7: 3 parts between '::', not the 4 of user::movie"),
        ("ratings.dat", 7, lambda s: "", "line 7: 1 parts"),
        ("ratings.dat", 7, lambda s: s + "::1", "line 7: 5 parts"),
        ("ratings.dat", 7, lambda s: "1::7::6::7", "line 7: rating is '6', not one of 1 to 5"),
        ("ratings.dat", 7, lambda s: "1::7::0::7", "line 7: rating is '0'"),
        ("ratings.dat", 7, lambda s: "1::7::3.5::7", "line 7: rating is '3.5'"),
        ("ratings.dat", 7, lambda s: "x::7::3::7", "line 7: user is 'x', not a whole number"),
        ("ratings.dat", 7, lambda s: "99::7::3::7", "line 7: user 99 does not stand in users.dat. 1 lines"),
        ("ratings.dat", 7, lambda s: "1::99::3::7", "line 7: movie 99 does not stand in movies.dat"),
        ("users.dat", 3, lambda s: s.rsplit("::", 1)[0], "line 3: 4 parts"),
        ("users.dat", 3, lambda s: "3::F::30::1::0", "line 3: age is '30', not one of the classes 1, 18"),
        ("users.dat", 3, lambda s: "3::X::25::1::0", "line 3: gender is 'X', not F or M"),
        ("users.dat", 3, lambda s: "2::F::25::1::0", "line 3: user 2 stands there a second time"),
        ("movies.dat", 4, lambda s: s.replace(": part", ":: part"), "line 4: 4 parts"),
        ("movies.dat", 4, lambda s: "4::Title::", "line 4: genres is '', not genres joined by"),
    ],
)
def test_a_malformed_line_is_named(folder, file, line, change, words):
    edit(folder / file, line, change)
    with pytest.raises(DataError, match=words) as error:
        croco_lib.load("movielens-1m")
    assert file in str(error.value)


@pytest.mark.parametrize("file", ["ratings.dat", "users.dat", "movies.dat"])
def test_a_missing_file_is_named_and_how_to_get_it(folder, file):
    (folder / file).unlink()
    with pytest.raises(DataError, match=f"{file}: there is no such file. .*data get movielens-1m.*{movielens.MD5}"):
        croco_lib.load("movielens-1m")


def test_without_data_it_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("CROCO_DATA", str(tmp_path))
    (tmp_path / "ml-1m").mkdir()
    assert find("movielens-1m") is None
    with pytest.raises(DataError, match="movielens-1m is not here.*files.grouplens.org.*CROCO_DATA"):
        croco_lib.load("movielens-1m")


@pytest.mark.parametrize("inner", [".", "ml-1m", "ML-1M", "movielens-1m/ml-1m", "MovieLens-1M", "ml-1m-copy"])
def test_it_is_found_under_either_name(folder, tmp_path, monkeypatch, inner):
    root = tmp_path / "other"
    place = root / inner
    place.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(place)
    monkeypatch.setenv("CROCO_DATA", str(root))
    assert find("movielens-1m") == place


def test_every_set_is_made_or_has_raw_files():
    assert set(DATASETS) - set(RAW) == {"world"} and set(RAW) >= set(PREPARE) - {"world"} | set(DOWNLOAD)
    for name in ("world", "movielens"):
        with pytest.raises(CrocoError, match="Unknown data set of raw files"):
            find(name)
    with pytest.raises(CrocoError, match="Unknown data set to fetch 'ali-ccp'"):
        download("ali-ccp")


@pytest.mark.parametrize("right", [True, False])
def test_the_archive_is_fetched_checked_and_unpacked(folder, tmp_path, monkeypatch, right):
    import pooch

    packed = tmp_path / "published.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"ml-1m/{path.name}")
    asked = []

    def fetcher(url, output_file, pooch):
        asked.append(url)
        with open(output_file, "wb") as file:
            file.write(packed.read_bytes())

    retrieve = pooch.retrieve
    monkeypatch.setattr("pooch.retrieve", lambda *args, **rest: retrieve(*args, **rest, downloader=fetcher))
    monkeypatch.setattr(raw, "BASE", tmp_path / "project")
    monkeypatch.delenv("CROCO_DATA")
    if right:
        monkeypatch.setattr(movielens, "MD5", pooch.file_hash(str(packed), alg="md5"))
        target = download("movielens-1m")
        assert target == tmp_path / "project" / "data" / "raw" / "movielens-1m"
        assert find("movielens-1m") == target / "ml-1m"
        assert len(croco_lib.load("movielens-1m").train) == 336
    else:
        with pytest.raises(DataError, match="Could not fetch ml-1m.zip: (?s:.*)Without the network: .*c4d9eecf"):
            download("movielens-1m")
        assert find("movielens-1m") is None
    assert asked == ["https://files.grouplens.org/datasets/movielens/ml-1m.zip"]


def test_the_real_set_has_the_counted_rows():
    if find("movielens-1m") is None:
        pytest.skip("MovieLens-1M is not here; run `croco data get movielens-1m`")
    data = croco_lib.load("movielens-1m")
    if data.notes["rows"] != 999_714:
        pytest.skip("the counts below are those of a copy without the 257 rarest movies")
    assert data.describe()["rows"].tolist() == [210_599, 395_435, 393_680]  # under 25, 25–34, 35 and over
    positive = np.concatenate([getattr(data, s).label for s in SPLITS])
    assert positive.mean() == pytest.approx(0.575, abs=5e-4)
