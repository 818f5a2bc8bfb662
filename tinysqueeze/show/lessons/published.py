"""Published weights for a lesson: from a folder, or by name; else the lesson stops in one line."""

import os
from pathlib import Path

from tinysqueeze.errors import DataError
from tinysqueeze.weights import SOURCES, WeightSet, open_weights


class LessonStopped(Exception):
    """Something is missing that a lesson is about. A notebook shows the line alone, and runs no further."""

    def _render_traceback_(self) -> list[str]:  # what IPython shows instead of a traceback
        return [str(self)]


def published(name: str) -> WeightSet:
    """The weights of that name among SOURCES, with their classes' names.

    Looks in the folder $TINYSQUEEZE_SHARED (otherwise ../../shared/data, which is beside a checkout),
    then downloads them once and checks their hash. Raises LessonStopped where neither is possible:
    without them, everything below would be noise under captions of something else.
    """
    file = SOURCES[name].file.name
    here = Path(os.environ.get("TINYSQUEEZE_SHARED", "../../shared/data")) / file
    try:
        return open_weights(here if here.exists() else name)
    except DataError as error:
        raise LessonStopped(
            f"This lesson stops here: it needs {SOURCES[name].what}.\n{error}.\n"
            f"Or set TINYSQUEEZE_SHARED to the folder that holds {file}. Then run this cell again. "
            "What stands below is from a run that had the file; the exercises work without it."
        ) from None
