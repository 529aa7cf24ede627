"""A data set and its options as one text, which names them in jobs and tables."""

import json

from ..datasets.registry import is_own, present
from ..errors import CrocoError, parse_value


def spec_of(name: str, options: dict) -> str:
    """What `parse_data` takes apart again: "world:conflict=0", or the path of a file with its options as JSON.

    `name` may have options already; these come after them. Raises CrocoError for what the text cannot hold.
    """
    if not options:
        return name
    if is_own(name):
        return f"{name}:{json.dumps(options, sort_keys=True, ensure_ascii=False)}"
    written = {key: value if isinstance(value, str) else json.dumps(value) for key, value in options.items()}
    spec = f"{name}{',' if ':' in name else ':'}{','.join(f'{key}={text}' for key, text in written.items())}"
    read = parse_data(spec)[1]
    if lost := {key: value for key, value in options.items() if read.get(key, ...) != value}:
        raise CrocoError(f"An option of {name} is a number or a word, which {lost} is not.")
    return spec


def parse_data(spec: str) -> tuple[str, dict]:
    """ "world:conflict=0,tail=2" → ("world", {"conflict": 0, "tail": 2}); the options may also be one JSON object.

    Raises CrocoError for an option without a value or given twice, and for what is no JSON.
    """
    name, is_json, rest = spec.partition(":{")
    if is_json:
        try:
            return name, json.loads("{" + rest)
        except json.JSONDecodeError as error:
            raise CrocoError(f"{spec}: the options of {name} are not a JSON object ({error}).") from None
    name, _, options = spec.partition(":")
    pairs = [pair.partition("=") for pair in options.split(",") if pair]
    if bad := [key for key, sign, _ in pairs if not sign]:
        raise CrocoError(f"data is NAME or NAME:key=value,key=value; {bad[0]!r} has no value.")
    if len({key for key, *_ in pairs}) < len(pairs):
        raise CrocoError(f"{spec} gives an option twice.")
    return name, {key: parse_value(text) for key, _, text in pairs}


def need_data(spec: str) -> None:
    """Raise CrocoError for an unknown data set, or one whose files are not here."""
    name, options = parse_data(spec)
    if "search_share" in options:
        raise CrocoError("search_share is a word of a study, and no option of a data set: final runs read all rows.")
    present(name)
