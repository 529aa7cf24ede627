"""An exercise's check says what is wrong, and takes only a right answer for right."""

import numpy as np
import pytest

from croco_lib.lessons.exercises import are_numbers, check


def shape(x):
    return x > 0 or "it should be above zero."


@pytest.mark.parametrize(
    ("answer", "tests", "said"),
    [
        (..., [shape], "Not answered yet"),
        (3, [shape, lambda x: x == 3 or "not three."], "Right."),
        (3, [lambda x: np.isclose(x, 3) or "not three."], "Right."),
        (4, [lambda x: np.isclose(x, 3)], "Not yet: that is not it."),
        (-3, [shape, lambda x: 1 / 0], "Not yet: it should be above zero."),
        (4, [shape, lambda x: x == 3 or "not three."], "Not yet: not three."),
        ("4", [shape], "Not yet: it stopped with TypeError"),
        ([3, "up"], [lambda x: isinstance(x, tuple) or "two answers.", lambda x: x == (3, "up")], "Right."),
        (np.ones(2), [lambda x: x == 1], "Not yet: it stopped with ValueError"),
        (lambda x: ..., [lambda f: f(2) == 4 or "twice two."], "Not answered yet"),
        (lambda x: 2 * x, [lambda f: f(2) == 4 or "twice two."], "Right."),
        (lambda x: x, [lambda f: f(2) == 4 or "twice two."], "Not yet: twice two."),
        (lambda x: x.shape, [lambda f: f(2) == 4 or "twice two."], "Not yet: it stopped with AttributeError"),
    ],
)
def test_what_is_said(capsys, answer, tests, said):
    assert check(answer, *tests) is (said == "Right.")
    assert capsys.readouterr().out.startswith(said)


def test_only_true_is_right(capsys):
    assert not check(1, lambda x: None)
    assert "Not yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "held"),
    [((1, 2.5, 3), True), (np.arange(3), True), ([1, 2], False), (3, False), (("a", 1, 2), False), (None, False)],
)
def test_the_kind_of_an_answer(answer, held):
    assert are_numbers(answer, 3) is held
