"""Properties that break each of Pendo's rules, and how often: preview, request and counter must agree on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from flagpost_consumer.core.planning.pendo_rules import Rule
from flagpost_schemas import Scalar

BROKEN: Mapping[Rule, Mapping[str, Scalar]] = {
    Rule.NAME_CHARACTERS: {"user plan": "pro", "prénom": "Zoë", "fine": True},
    Rule.NAME_DIGIT: {"2nd": 1, "fine": 0.5},
    Rule.NAME_UNDERSCORES: {"__internal__": "x", "fine": None},
    Rule.NAME_LENGTH: {"p" * 40: 1, "q" * 31: 2},
    Rule.NAME_COLLISION: {
        "plan_name": "a",
        "p" * 31: 1,
        "p" * 30 + "-": 2,
        "plan-name": "b",
        "plan.name": "c",
    },
    Rule.NAME_RESERVED: {"error": "card declined", "code": 402},
    Rule.SIZE: {"kept": "x" * 400, "dropped": "y" * 200, "dropped_too": 7, "last": "z" * 80},
}

REPAIRS: Mapping[Rule, Counter[Rule]] = {
    Rule.NAME_CHARACTERS: Counter({Rule.NAME_CHARACTERS: 2}),
    Rule.NAME_DIGIT: Counter({Rule.NAME_DIGIT: 1}),
    Rule.NAME_UNDERSCORES: Counter({Rule.NAME_UNDERSCORES: 1}),
    Rule.NAME_LENGTH: Counter({Rule.NAME_LENGTH: 1}),
    # Two names become the same only after another rule has changed them.
    Rule.NAME_COLLISION: Counter({Rule.NAME_CHARACTERS: 3, Rule.NAME_COLLISION: 2}),
    Rule.NAME_RESERVED: Counter({Rule.NAME_RESERVED: 1}),
    Rule.SIZE: Counter({Rule.SIZE: 3}),
}
"""Written by hand, from docs/contract.md#requests-to-pendo."""

SENT: Mapping[Rule, Mapping[str, Scalar]] = {
    Rule.NAME_CHARACTERS: {"user_plan": "pro", "pr_nom": "Zoë", "fine": True},
    Rule.NAME_DIGIT: {"_2nd": 1, "fine": 0.5},
    Rule.NAME_UNDERSCORES: {"_internal_": "x"},
    Rule.NAME_LENGTH: {"p" * 31: 1, "q" * 31: 2},
    Rule.NAME_COLLISION: {
        "plan_name": "a", "p" * 31: 1, "p" * 30 + "_": 2, "plan_name_2": "b", "plan_name_3": "c"
    },
    Rule.NAME_RESERVED: {"error_": "card declined", "code": 402},
    Rule.SIZE: {"kept": "x" * 400},
}  # fmt: skip
"""Written by hand, too."""
