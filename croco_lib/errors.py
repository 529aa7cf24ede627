"""What a user is told when something goes wrong, files that are written whole, and values read from text."""

import difflib
import json
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OF_WRITING = ("SafetensorError", "ComputeError")  # what safetensors and polars raise on a full disk; torch RuntimeError


class CrocoError(ValueError):
    """Something the user gave cannot be used; the message says what, where and what to do."""


class DataError(CrocoError):
    """The data cannot be used as it is."""


def known(kind: str, name: str, registry: Collection[str]) -> str:
    """`name` if the registry has it; else a CrocoError with the known names and the nearest one."""
    if name in registry:
        return name
    near = difflib.get_close_matches(str(name), list(registry), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise CrocoError(f"Unknown {kind} {name!r}.{hint} Known: {', '.join(registry)}.")


def in_checkout(path: Path) -> Path:
    """A file or folder of the repository that no installed package brings. Raises CrocoError where it is not there."""
    if not path.exists():
        raise CrocoError(
            f"This needs {path.relative_to(ROOT)} of the repository, which an installed package does not "
            "have. Clone the repository and run `make setup` there."
        )
    return path


def parse_value(text: str) -> Any:
    """A number, true or false, null, or a list where the text is JSON; else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the path, then rename: an interruption leaves the old file or the new one, never a half.

    Raises CrocoError where the disk is full, or the file cannot be written for another reason.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # two processes may write one file at a time
    try:
        write(temporary)
        os.replace(temporary, path)
    except Exception as error:
        if not isinstance(error, OSError | RuntimeError) and type(error).__name__ not in OF_WRITING:
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CrocoError(
            f"{path} could not be written ({reason}). Is the disk full, or the folder not writable? What "
            "stood there before is whole."
        ) from error
    finally:  # also of an interruption by the keyboard
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """The text as UTF-8 on every system, whole or not at all."""
    write_whole(path, lambda p: p.write_text(text, encoding="utf-8"))
