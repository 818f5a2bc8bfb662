"""What the notebooks need: the library's own source, exercises that are checked, published weights."""

from tinysqueeze.show.lessons.checking import Verdict, check
from tinysqueeze.show.lessons.exercises import EXERCISES
from tinysqueeze.show.lessons.published import LessonStopped, published
from tinysqueeze.show.lessons.source import Source, source

__all__ = ["EXERCISES", "LessonStopped", "Source", "Verdict", "check", "published", "source"]
