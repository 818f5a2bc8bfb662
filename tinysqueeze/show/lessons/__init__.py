"""What the notebooks need: the library's own source on the page, and exercises that are checked."""

from tinysqueeze.show.lessons.checking import Verdict, check
from tinysqueeze.show.lessons.exercises import EXERCISES
from tinysqueeze.show.lessons.source import Source, source

__all__ = ["EXERCISES", "Source", "Verdict", "check", "source"]
