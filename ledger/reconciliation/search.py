"""The bounded search: which of a few amounts add up to one, if there is one answer only and it can't be chance."""

from collections.abc import Sequence
from datetime import date
from math import gcd
from typing import Final

CHANCE_MAX: Final = 1_000
"""An answer is believed where less than one in so many sets of such amounts would have hit the sum by accident."""


def only_subset(
    target: int, amounts: Sequence[int], days: Sequence[date], *, steps_max: int, has_older: bool = False
) -> tuple[int, ...] | None:
    """The positions of the two or more amounts that add up to `target`; None without an answer, or with more than one.

    `days` says of which day each amount is, and `has_older` that older ones are out of reach. All amounts have the sign of `target`,
    and none is zero. Also None where the search would take more than `steps_max` steps, or where there are so many sets of amounts for
    so few sums that one of them would fit whatever the target was; but for the oldest ones, none of them left out: so debts are paid.
    """
    goal = abs(target)
    sizes = [abs(amount) for amount in amounts]
    order = sorted((at for at in range(len(sizes)) if sizes[at] < goal), key=lambda at: -sizes[at])
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
            answers.append(chosen)
            if len(answers) > 1:
                return None
            continue
        if missing > left[at]:
            continue
        stack.append((at + 1, missing, chosen))
        if sizes[order[at]] <= missing:
            stack.append((at + 1, missing - sizes[order[at]], (*chosen, order[at])))
    if not answers:
        return None
    answer = tuple(sorted(answers[0]))
    believed = (not has_older and _are_oldest(answer, days)) or not _by_chance([sizes[at] for at in order])
    return answer if believed else None


def _are_oldest(chosen: Sequence[int], days: Sequence[date]) -> bool:
    """Whether all that is left out is of later days than the chosen."""
    newest = max(days[at] for at in chosen)
    return all(day > newest for at, day in enumerate(days) if at not in chosen)


def _by_chance(sizes: Sequence[int]) -> bool:
    """Whether of all sets of these, spread over as many sums as they can come to, some hit any one sum by accident."""
    sets = (1 << len(sizes)) - len(sizes) - 1  # of two or more
    return sets * CHANCE_MAX > sum(sizes) // gcd(*sizes)
