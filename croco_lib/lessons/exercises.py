"""Exercises that say what is wrong with an answer, and never what the answer is."""

import os
from collections.abc import Callable
from functools import wraps

import numpy as np


class _Open(Exception):
    """The learner's function still returns `...`."""


def _watched(function: Callable) -> Callable:
    """The function, told apart from one whose body is still open."""

    @wraps(function)
    def call(*arguments, **named):
        value = function(*arguments, **named)
        if value is ...:
            raise _Open
        return value

    return call


def check(answer, *tests: Callable) -> bool:
    """Print whether an answer holds, and return it.

    `answer` is a value or the learner's function; `...`, or a function that returns it, means not answered yet. Each
    test takes the answer, a list as a tuple, and returns True, or a sentence that says what is wrong; the first such
    sentence is shown. An error in the learner's code is shown in words.
    """
    given = _watched(answer) if callable(answer) else tuple(answer) if isinstance(answer, list) else answer
    wrong: object = _Open() if given is ... else None  # None: nothing is wrong so far
    for test in tests:
        if wrong is None:
            try:
                held = test(given)
                if isinstance(held, str) or not held:  # not `is not True`: NumPy has a True of its own
                    wrong = held or "that is not it."
            except Exception as error:  # the learner's code may raise anything, and an array is neither true nor false
                wrong = error
    if wrong is None:
        print("Right.")
    elif isinstance(wrong, _Open):
        # Voila shows no code, so nothing stands "above" there; its kernels can be told by this variable.
        if os.environ.get("SERVER_SOFTWARE", "").startswith("voila"):
            print("To be answered in the notebook.")
        else:
            print("Not answered yet: replace the ... above and run both cells.")
    elif isinstance(wrong, Exception):
        print(f"Not yet: it stopped with {type(wrong).__name__}: {wrong}")
    else:
        print(f"Not yet: {wrong}")
    return wrong is None


def are_numbers(answer: object, count: int) -> bool:
    """Whether an answer is a list, tuple or array of so many numbers: a test of its kind, before its values."""
    try:
        return np.asarray(answer, float).shape == (count,)
    except (TypeError, ValueError):
        return False
