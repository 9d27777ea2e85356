"""What `make mutation` reports of mutmut's results: stable names, wording counted apart, and true explanations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mutation.explanations import read_explanations
from mutation.mutants import Mutant, read_mutants
from mutation.rooms import CORE, held_by, modules, rooms
from mutation.score import Score, report

MUTATED = '''
class Budget:
    def xǁBudgetǁspend__mutmut_orig(self, now: float) -> None:
        """A sentence that no mutant changes."""
        self.tokens -= 1.0
        raise ValueError(f"no tokens at {now}")

    def xǁBudgetǁspend__mutmut_1(self, now: float) -> None:
        """A sentence that no mutant changes."""
        self.tokens += 1.0
        raise ValueError(f"no tokens at {now}")

    def xǁBudgetǁspend__mutmut_2(self, now: float) -> None:
        """A sentence that no mutant changes."""
        self.tokens -= 1.0
        raise ValueError(f"XXno tokens at {now}XX")


def x__half__mutmut_orig(a: int) -> str:
    return "half" if a / 2 else "none"


def x__half__mutmut_1(a: int) -> str:
    return "XXhalfXX" if a / 2 else "none"


def x__half__mutmut_2(a: int) -> str:
    return "half" if a * 2 else "none"
'''
MODULE = CORE / "pendo" / "budget.py"
SPEND = "pendo/budget.py Budget.spend: self.tokens -= 1.0 -> self.tokens += 1.0"
HALF = "pendo/budget.py _half: return 'half' if a / 2 else 'none' -> return 'half' if a * 2 else 'none'"


def mutants(folder: Path, spend: int | None = 0, half: int | None = 1) -> list[Mutant]:
    """The mutants that are read from a folder in which two of four ended with these exit codes of pytest."""
    file = folder / "mutants" / "src" / MODULE
    file.parent.mkdir(parents=True)
    file.write_text(MUTATED, "utf-8")
    module = "flagpost_consumer.core.pendo.budget"
    codes = {
        f"{module}.xǁBudgetǁspend__mutmut_1": spend,
        f"{module}.xǁBudgetǁspend__mutmut_2": 0,
        f"{module}.x__half__mutmut_1": 1,
        f"{module}.x__half__mutmut_2": half,
    }
    file.with_name("budget.py.meta").write_text(json.dumps({"exit_code_by_key": codes}), "utf-8")
    return list(read_mutants(folder, [MODULE, CORE / "pendo" / "never_mutated.py"]))


def test_a_mutant_is_named_by_what_it_changes(tmp_path: Path) -> None:
    found = mutants(tmp_path)
    assert found[0].key == SPEND
    assert found[3].key == HALF


def test_only_the_words_of_a_sentence_are_wording(tmp_path: Path) -> None:
    """A single word is a key, a name or a value, and programs read it."""
    assert [each.is_wording for each in mutants(tmp_path)] == [False, True, False, False]


@pytest.mark.parametrize(
    ("code", "judged", "killed"),
    [
        (0, True, False),
        (1, True, True),
        (33, True, False),
        (-24, True, True),
        (-11, False, False),
        (None, False, False),
    ],
)
def test_how_a_mutant_ended(tmp_path: Path, code: int | None, judged: bool, killed: bool) -> None:
    mutant = mutants(tmp_path, spend=code)[0]
    assert (mutant.is_judged, mutant.is_killed) == (judged, killed)


def test_a_survivor_without_a_reason_fails_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    score = Score.of("pendo", mutants(tmp_path), {})
    assert (score.mutants, score.killed, score.wording) == (3, 2, 1)
    assert score.unexplained == (SPEND,)
    assert report([score]) == 1
    printed = capsys.readouterr().out
    assert SPEND in printed
    assert " 66.7 %" in printed


def test_an_explained_survivor_counts_as_alive_and_is_no_fault(tmp_path: Path) -> None:
    score = Score.of("pendo", mutants(tmp_path), {SPEND: "a reason"})
    assert (score.explained, score.unexplained, score.no_longer) == (1, (), ())
    assert score.percent == pytest.approx(200 / 3)


def test_an_explanation_of_a_mutant_that_no_longer_survives_fails_the_run(tmp_path: Path) -> None:
    score = Score.of(
        "pendo", mutants(tmp_path, spend=1), {HALF: "a reason", "books/dedupe.py x: a -> b": "other"}
    )
    assert score.percent == 100.0
    assert score.no_longer == (HALF,), "that of another room is none of this one's"
    assert report([score]) == 1


def test_a_mutant_whose_tests_did_not_finish_fails_the_run(tmp_path: Path) -> None:
    score = Score.of("pendo", mutants(tmp_path, half=None), {SPEND: "a reason"})
    assert len(score.unjudged) == 1
    assert report([score]) == 1


def test_a_good_room_passes(tmp_path: Path) -> None:
    assert report([Score.of("pendo", mutants(tmp_path, spend=1), {})]) == 0


def test_every_module_of_the_core_is_in_one_room_that_has_tests() -> None:
    core = Path(__file__).parents[2] / "consumer" / "src" / CORE
    written = {each.relative_to(core) for each in core.rglob("*.py") if each.name != "__init__.py"}
    listed = [each.relative_to(CORE) for room in rooms() for each in modules(room)]
    assert len(listed) == len(set(listed))
    assert set(listed) == written
    assert all(held_by(room) for room in rooms())


def test_every_explanation_is_of_a_module_that_exists() -> None:
    listed = {each.relative_to(CORE).as_posix() for room in rooms() for each in modules(room)}
    assert {key.partition(" ")[0] for key in read_explanations()} <= listed
