"""A data set and its options as one text, which names them in jobs and tables."""

import json

from ..datasets.registry import is_own
from ..errors import CrocoError, parse_value


def spec_of(name: str, options: dict) -> str:
    """What `parse_data` takes apart again: "world:conflict=0", or the path of a file with its options as JSON.

    `name` may have options already; these come after them.
    """
    if not options:
        return name
    if is_own(name):
        return f"{name}:{json.dumps(options, sort_keys=True, ensure_ascii=False)}"
    written = {key: value if isinstance(value, str) else json.dumps(value) for key, value in options.items()}
    return f"{name}{',' if ':' in name else ':'}{','.join(f'{key}={text}' for key, text in written.items())}"


def parse_data(spec: str) -> tuple[str, dict]:
    """ "world:conflict=0,tail=2" → ("world", {"conflict": 0, "tail": 2}); the options may also be one JSON object.

    Raises CrocoError for an option without a value or given twice, and for what is no JSON.
    """
    name, is_json, rest = spec.partition(":{")
    if is_json:
        try:
            return name, json.loads("{" + rest)
        except json.JSONDecodeError as error:
            raise CrocoError(f"{spec}: the options of {name} are no JSON object ({error}).") from None
    name, _, options = spec.partition(":")
    pairs = [pair.partition("=") for pair in options.split(",") if pair]
    if bad := [key for key, sign, _ in pairs if not sign]:
        raise CrocoError(f"data is NAME or NAME:key=value,key=value; {bad[0]!r} has no value.")
    if len({key for key, *_ in pairs}) < len(pairs):
        raise CrocoError(f"{spec} gives an option twice.")
    return name, {key: parse_value(text) for key, _, text in pairs}
