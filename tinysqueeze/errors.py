"""What can go wrong for a user, each with one clear line; the command line prints it and exits 1 (or 2)."""

LONGEST = 2000  # letters of a message


class UserError(Exception):
    """Something the user can mend. The message is one line that says what, where and how to mend it.

    It may quote a file: line breaks, control characters and what no terminal can show are escaped.
    """

    def __init__(self, message: object = "") -> None:
        text = str(message)
        text = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text))


class ShapeError(UserError, ValueError):
    """An array or an image does not fit: names the layer, the shape expected, the shape got.

    `path` says which layer of the network it is ("fire2/squeeze"), as far as the error has come up.
    """

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.message, self.path = message, path

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message

    def within(self, name: str) -> "ShapeError":
        """The same error, seen from the composition that calls its layer `name` ("": as before)."""
        outer = ShapeError(self.message, "/".join(filter(None, (name, self.path))))
        return outer.with_traceback(self.__traceback__)


class UsageError(UserError):
    """A command was called with what it can't take; the command line exits 2."""


class DataError(UserError):
    """A dataset is missing, incomplete or cannot be fetched."""


class FormatError(UserError):
    """A file is truncated, corrupt, or not what its name says."""


class CheckpointError(UserError):
    """A checkpoint cannot be read, written, or belongs to another model."""


class TrainingError(UserError):
    """Training cannot go on, for instance because the loss is no longer a number."""


class MissingExtra(UserError, ImportError):
    """A feature needs a library that the core does not install."""


def missing_extra(extra: str, purpose: str) -> MissingExtra:
    """The error for a library of the optional group `extra`, needed for `purpose`."""
    return MissingExtra(f"{purpose} needs an extra: pip install 'tinysqueeze[{extra}]'")
