"""The exercises of all lessons, by name: what is asked, and the library's own function that knows."""

from tinysqueeze.lessons.exercise import Exercise
from tinysqueeze.lessons.exercises.networks import NETWORKS
from tinysqueeze.lessons.exercises.operations import OPERATIONS
from tinysqueeze.lessons.exercises.small import SMALL
from tinysqueeze.lessons.exercises.training import TRAINING

EXERCISES: dict[str, Exercise] = OPERATIONS | NETWORKS | TRAINING | SMALL
