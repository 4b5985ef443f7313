"""Networks of textbooks, as plain data."""

from typing import Any

STUDENT: dict[str, Any] = {  # Koller, Friedman: Probabilistic Graphical Models, 2009, figure 3.4
    "name": "student",
    "states": {
        "difficulty": ("easy", "hard"),
        "intelligence": ("low", "high"),
        "grade": ("A", "B", "C"),
        "SAT": ("low", "high"),
        "letter": ("weak", "strong"),
    },
    "parents": {
        "grade": ("difficulty", "intelligence"),
        "SAT": ("intelligence",),
        "letter": ("grade",),
    },
    "tables": {
        "difficulty": [0.6, 0.4],
        "intelligence": [0.7, 0.3],
        "grade": [[[0.3, 0.4, 0.3], [0.9, 0.08, 0.02]], [[0.05, 0.25, 0.7], [0.5, 0.3, 0.2]]],
        "SAT": [[0.95, 0.05], [0.2, 0.8]],
        "letter": [[0.1, 0.9], [0.4, 0.6], [0.99, 0.01]],
    },
}
