"""Programs under construction: stages of jobs, and now and then a layer that Python runs."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tinysqueeze.compiled.space import IMAGES
from tinysqueeze.kernels.kernel import Job
from tinysqueeze.kernels.team import Program, Split, Stage, Team


@dataclass(frozen=True)
class Given:
    """What a run is given: images (N, H, W, C); for training a seed, and what the loss needs."""

    images: np.ndarray
    seed: int = 0
    shares: np.ndarray | None = None  # of each class in the labels, (N, classes)
    smoothing: float = 0.0


Call = Callable[[Given], None]
"""What Python runs between two programs; or before a run, to tell a job where the images are."""


@dataclass
class Chunks:
    """A stage over chunks of images, with what each thread does once before and once after it."""

    count: int
    before: Stage = field(default_factory=lambda: Stage(Split.OWN, wait=False))
    jobs: Stage = field(default_factory=lambda: Stage(wait=False))
    after: Stage = field(default_factory=lambda: Stage(Split.OWN, wait=False))

    def add(self, *jobs: Job) -> None:
        """Appends jobs for each chunk."""
        self.jobs.add(*jobs)


class Sequence:
    """Stages in order. Those over images do not wait for each other: a thread that has finished its
    images in one layer goes on with the same images in the next; unless `wait`."""

    def __init__(self, wait: bool = False) -> None:
        self.wait = wait
        self.parts: list[list[Stage] | Call] = []
        self.settings: list[Call] = []
        self._open: Chunks | None = None

    @property
    def _stages(self) -> list[Stage]:
        if not self.parts or not isinstance(self.parts[-1], list):
            self.parts.append([])
        return self.parts[-1]  # type: ignore[return-value]

    def chunks(self, count: int) -> Chunks:
        """The stage at hand, if its chunks have `count` images; else a new one."""
        if self._open is None or self._open.count != count:
            self.close()
            self._open = Chunks(count)
            self._open.jobs.chunk, self._open.jobs.wait = count, self.wait
            self._stages.extend([self._open.before, self._open.jobs, self._open.after])
        return self._open

    def close(self) -> None:
        """The next jobs begin a new stage."""
        self._open = None

    def wait_before(self) -> None:
        """All threads wait for each other before the stage at hand."""
        mine = self._open
        open_stages = (mine.before, mine.jobs, mine.after) if mine else ()
        done = [s for s in self._stages if s.jobs and all(s is not own for own in open_stages)]
        if done:
            done[-1].wait = True

    def each(self) -> Stage:
        """A stage whose jobs split their own units; everybody waits before and after it."""
        self.close()
        filled = [stage for stage in self._stages if stage.jobs]
        if filled:
            filled[-1].wait = True
        stage = Stage(Split.EACH)
        self._stages.append(stage)
        return stage

    def add(self, stage: Stage) -> None:
        """A stage made elsewhere."""
        self.close()
        self._stages.append(stage)

    def own(self) -> Stage:
        """A stage that each thread runs for itself."""
        self.close()
        stage = Stage(Split.OWN, wait=False)
        self._stages.append(stage)
        return stage

    def call(self, function: Call) -> None:
        """Something for Python to run, by itself."""
        self.close()
        self.parts.append(function)

    def before_run(self, setting: Call) -> None:
        """What is set anew for each run."""
        self.settings.append(setting)

    def extend(self, other: "Sequence") -> None:
        """Appends another's stages and calls; everybody waits in between."""
        self.close()
        other.close()
        self.wait_before()
        self.settings += other.settings
        for part in other.parts:
            if isinstance(part, list):
                self._stages.extend(part)
            else:
                self.call(part)

    def programs(self) -> "Runnable":
        """Ready to run, where each job that reads the images is told where the caller has them."""
        self.close()
        stages = [stage for part in self.parts if isinstance(part, list) for stage in part]
        jobs = [job for stage in stages for job, _ in stage.jobs]
        reading = [job for job in jobs if "x" in job.arrays and job.arrays["x"].base is IMAGES]

        def setting(given: Given) -> None:
            for job in reading:
                job.set(x=given.images)

        parts = [part if callable(part) else Program(part) for part in self.parts]
        return Runnable(parts, [setting, *self.settings])


@dataclass
class Runnable:
    """Programs and calls, one after the other."""

    parts: list[Program | Call]
    settings: list[Call]

    def run(self, team: Team, given: Given) -> None:
        """Runs them for some images."""
        for setting in self.settings:
            setting(given)
        for part in self.parts:
            if isinstance(part, Program):
                team.run(part, len(given.images))
            else:
                part(given)
