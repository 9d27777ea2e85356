"""How many mutants the tests kill, room by room, and what is wrong with the rest."""

from __future__ import annotations

from dataclasses import dataclass

from mutation.mutants import Mutant
from mutation.rooms import CORE, modules, rooms

LEAST_PERCENT = 92.0


@dataclass(frozen=True, slots=True)
class Score:
    """The result of a run in one room. Mutants that change only wording are counted separately, killed or not."""

    room: str
    mutants: int
    killed: int
    timed_out: int
    """The killed mutants for which no test failed, but one used up its CPU time."""
    wording: int
    explained: int
    unexplained: tuple[str, ...]
    unjudged: tuple[str, ...]
    """Mutants whose tests did not run to an end."""
    no_longer: tuple[str, ...]
    """Mutants that are explained as survivors and no longer survive."""

    @classmethod
    def of(cls, room: str, found: list[Mutant], explanations: dict[str, str]) -> Score:
        """Count a room's mutants."""
        counted = [each for each in found if not each.is_wording]
        judged = [each for each in counted if each.is_judged]
        survivors = {each.key for each in judged if not each.is_killed}
        own = {each for each in explanations if _room_of(each) == room}
        return cls(
            room,
            mutants=len(counted),
            killed=sum(each.is_killed for each in judged),
            timed_out=sum(each.is_timed_out for each in judged),
            wording=len(found) - len(counted),
            explained=len(survivors & own),
            unexplained=tuple(sorted(survivors - own)),
            unjudged=tuple(sorted(each.mutmut_name for each in counted if not each.is_judged)),
            no_longer=tuple(sorted(own - survivors - {each.key for each in counted if not each.is_judged})),
        )

    @property
    def percent(self) -> float:
        """The percentage of killed mutants, without those that change only wording; explained ones count as alive."""
        return 100.0 * self.killed / self.mutants if self.mutants else 100.0

    @property
    def is_good(self) -> bool:
        """Whether the score is high enough and no mutant needs attention."""
        return self.percent >= LEAST_PERCENT and not (self.unexplained or self.unjudged or self.no_longer)


def report(scores: list[Score]) -> int:
    """Print what was found; returns the exit code."""
    for score in scores:
        _print_list(f"{score.room}: survive without an explanation", score.unexplained)
        _print_list(f"{score.room}: explained, and survive no more", score.no_longer)
        _print_list(f"{score.room}: not tried to an end", score.unjudged)
    print(_line("room", "mutants", "killed", "timed out", "score", "explained", "unexplained", "wording"))
    for each in [*scores, _sum(scores)]:
        survivors = each.explained, len(each.unexplained)
        print(
            _line(
                each.room,
                each.mutants,
                each.killed,
                each.timed_out,
                f"{each.percent:.1f} %",
                *survivors,
                each.wording,
            )
        )
    return 0 if all(score.is_good for score in scores) else 1


def _line(room: str, *columns: object) -> str:
    return f"{room:<9}" + "".join(f"{column!s:>12}" for column in columns)


def _sum(scores: list[Score]) -> Score:
    return Score(
        "all",
        sum(each.mutants for each in scores),
        sum(each.killed for each in scores),
        sum(each.timed_out for each in scores),
        sum(each.wording for each in scores),
        sum(each.explained for each in scores),
        tuple(key for each in scores for key in each.unexplained),
        tuple(key for each in scores for key in each.unjudged),
        tuple(key for each in scores for key in each.no_longer),
    )


def _print_list(title: str, lines: tuple[str, ...]) -> None:
    if lines:
        print(f"{title} ({len(lines)}):", *(f"  {line}" for line in lines), "", sep="\n")


def _room_of(key: str) -> str:
    """The room of the module with which a mutant's key begins."""
    module = CORE / key.partition(" ")[0]
    return next((room for room in rooms() if module in modules(room)), "")
