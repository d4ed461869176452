"""The one registry of TFLite's operators: a converter is a decorated function over a Call, which it turns into nodes.

To add an operator: one function in ops/, one case in tests/converters/test_tflite.py.
"""

from __future__ import annotations

from collections.abc import Callable

OPERATORS: dict[str, Callable] = {}
# Why an operator is refused that the schema has.
REFUSED = {
    **dict.fromkeys(
        ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE"),
        "it works on variables that live outside of the graph; convert the model with its states as inputs and outputs",
    ),
    **dict.fromkeys(("RANDOM_STANDARD_NORMAL", "RANDOM_UNIFORM", "MULTINOMIAL"), "it draws random numbers"),
    **dict.fromkeys(("WHERE", "UNIQUE", "NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5"), "the size of its output depends on data"),
}


def operator(*names: str):
    """Registers (call) under operators' names."""

    def register(function):
        for name in names:
            OPERATORS[name] = function
        return function

    return register
