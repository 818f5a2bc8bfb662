"""The exercises of all lessons, by name: what is asked, and the library's own function that knows."""

from tinysqueeze.show.lessons.exercise import Exercise
from tinysqueeze.show.lessons.exercises.networks import NETWORKS
from tinysqueeze.show.lessons.exercises.operations import OPERATIONS
from tinysqueeze.show.lessons.exercises.small import SMALL
from tinysqueeze.show.lessons.exercises.training import TRAINING

EXERCISES: dict[str, Exercise] = OPERATIONS | NETWORKS | TRAINING | SMALL
