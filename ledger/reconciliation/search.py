"""The bounded search: which of a few amounts add up to one, if there is one answer only and it can't be chance."""

from collections.abc import Sequence
from math import gcd
from typing import Final

CHANCE_MAX: Final = 1_000
"""An answer is believed where less than one in so many sets of such amounts would have hit the sum by accident."""


def only_subset(target: int, amounts: Sequence[int], *, steps_max: int) -> tuple[int, ...] | None:
    """The positions of the two or more amounts that add up to `target`; None without an answer, or with more than one.

    All amounts have the sign of `target`, and none is zero. Also None where the search would take more than `steps_max` steps, or
    where there are so many sets of amounts for so few sums that one of them would fit whatever the target was.
    """
    goal, sizes = abs(target), [abs(amount) for amount in amounts]
    # of 2^n sets, spread over as many sums as the amounts can come to, some hit any one sum by accident
    if 2 ** len(sizes) * CHANCE_MAX > sum(sizes) // gcd(*sizes):
        return None
    order = sorted(range(len(sizes)), key=lambda at: -sizes[at])
    left = [0] * (len(order) + 1)
    for at in range(len(order) - 1, -1, -1):
        left[at] = left[at + 1] + sizes[order[at]]
    answers: list[tuple[int, ...]] = []
    stack: list[tuple[int, int, tuple[int, ...]]] = [(0, goal, ())]
    steps = 0
    while stack:
        steps += 1
        if steps > steps_max:
            return None
        at, missing, chosen = stack.pop()
        if missing == 0:
            if len(chosen) > 1:
                answers.append(chosen)
                if len(answers) > 1:
                    return None
            continue
        if missing > left[at]:
            continue
        stack.append((at + 1, missing, chosen))
        if sizes[order[at]] <= missing:
            stack.append((at + 1, missing - sizes[order[at]], (*chosen, order[at])))
    return tuple(sorted(answers[0])) if answers else None
