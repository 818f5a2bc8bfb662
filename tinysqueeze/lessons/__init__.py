"""What the notebooks need: the library's own source on the page, and exercises that are checked."""

from tinysqueeze.lessons.checking import Verdict, check
from tinysqueeze.lessons.exercises import EXERCISES
from tinysqueeze.lessons.source import Source, source

__all__ = ["EXERCISES", "Source", "Verdict", "check", "source"]
