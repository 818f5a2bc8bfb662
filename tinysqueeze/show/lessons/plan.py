"""The course: what each lesson is for, what it stands on, and how long it takes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Lesson:
    """One lesson: the name of its notebook, its goals, the lessons it stands on, minutes with exercises."""

    name: str
    title: str
    goals: tuple[str, ...]
    needs: tuple[str, ...]  # their numbers
    minutes: int

    @property
    def number(self) -> str:
        """Two digits: the beginning of its name."""
        return self.name[:2]


LESSONS = (
    Lesson(
        "00_first_steps", "First steps: from a photograph to a network that learns",
        ("see what a convolution, a ReLU and a pool do to a photograph",
         "know what a network, a loss, a gradient and a step of training are"),
        (), 30,
    ),
    Lesson(
        "01_convolution_by_loops", "Convolution by loops",
        ("write a convolution in five lines", "say how large its output is", "say what a 3×3 filter sees"),
        ("00",), 40,
    ),
    Lesson(
        "02_im2col", "im2col: a convolution is one matrix product",
        ("turn every window into a row", "see why 1×1 needs no such copy", "say what it costs in memory"),
        ("01",), 40,
    ),
    Lesson(
        "03_convolution_backward", "The way back: where gradients add",
        ("derive the gradients of weight, bias and image", "see why overlapping windows add"),
        ("02",), 50,
    ),
    Lesson(
        "04_gradient_check", "Does backward tell the truth?",
        ("check any gradient by finite differences", "know kinks and rounding", "find a planted bug"),
        ("03",), 45,
    ),
    Lesson(
        "05_one_by_one", "1×1 against 3×3",
        ("see that a 1×1 convolution is a fully connected layer at each pixel",
         "count nine times fewer weights"),
        ("02",), 35,
    ),
    Lesson(
        "06_pooling", "Pooling, and the two ways to downsample",
        ("pool forward and backward", "choose between a stride and a pool", "know floor and ceil"),
        ("01", "04"), 35,
    ),
    Lesson(
        "07_softmax_cross_entropy", "Softmax and cross-entropy",
        ("turn scores into chances and chances into a loss", "know its gradient", "recognise ln 10 = 2.303"),
        ("00", "04"), 35,
    ),
    Lesson(
        "08_fire_module", "The Fire module",
        ("build one from three convolutions", "count its parameters by hand", "see Strategy 2 in it"),
        ("05",), 40,
    ),
    Lesson(
        "09_three_strategies", "The three strategies, each with its number",
        ("turn each strategy off and count what it saved", "say what late pools cost"),
        ("06", "08"), 40,
    ),
    Lesson(
        "10_squeezenet", "The whole SqueezeNet, beside AlexNet and VGG",
        ("name every layer", "step forward and back through it", "find the 50 times fewer parameters"),
        ("07", "09"), 50,
    ),
    Lesson(
        "11_training", "Training, and reading the curves",
        ("write a step of SGD", "read a learning curve", "cure a network that is stuck at 2.303",
         "tell a difference from chance"),
        ("10",), 45,
    ),
    Lesson(
        "12_bypass_and_design_space", "Bypass, and the design space",
        ("add paths around Fires", "turn the paper's knobs and see what they cost"),
        ("11",), 40,
    ),
    Lesson(
        "13_authors_weights", "The authors' weights on a photograph",
        ("prepare a photograph as a network wants it", "see what it sees, and where"),
        ("10",), 40,
    ),
    Lesson(
        "14_from_loops_to_winograd", "From loops to Winograd: the same convolution, ever faster",
        ("know five ways to the same numbers", "say where the time goes", "do Winograd's trick by hand"),
        ("02", "03"), 50,
    ),
    Lesson(
        "15_step_through", "Step through it: a debugger for backpropagation",
        ("take one training step apart, number by number",), ("10",), 35,
    ),
    Lesson(
        "16_bandwidth", "Bandwidth: the same network in a fraction of its bytes",
        ("prune, share and code a network's weights", "say where every byte goes"), ("11",), 50,
    ),
    Lesson(
        "17_communication", "Communication: less to say to each other",
        ("average gradients in a ring", "say what a small network saves many machines"), ("11",), 45,
    ),
    Lesson(
        "18_memory", "Memory: a network on a chip",
        ("plan which maps share memory", "run in bytes", "read the exported C"), ("10",), 45,
    ),
    Lesson(
        "19_results", "What it reaches",
        ("read accuracies with their spread", "compare recipes by their cost"), ("11", "12"), 25,
    ),
)  # fmt: skip


def header(lesson: Lesson) -> str:
    """The Markdown that a lesson begins with: number and title, goals, needs, minutes, its neighbours."""
    at = LESSONS.index(lesson)
    by_number = {one.number: one for one in LESSONS}
    needs = (
        ", ".join(f"[{n}]({by_number[n].name}.ipynb)" for n in lesson.needs)
        or "some Python and NumPy"
    )
    around = [
        *(
            f"← [{one.number} {one.title}]({one.name}.ipynb)"
            for one in LESSONS[max(at - 1, 0) : at]
        ),
        "[all lessons](index.md)",
        "[glossary](glossary.md)",
        *(f"[{one.number} {one.title}]({one.name}.ipynb) →" for one in LESSONS[at + 1 : at + 2]),
    ]
    return (
        f"# {lesson.number} · {lesson.title}\n\n"
        f"**You will** {'; '.join(lesson.goals)}.\n\n"
        f"**Needs:** {needs} · **takes about** {lesson.minutes} minutes\n\n"
        f"{' · '.join(around)}"
    )


def contents() -> str:
    """All lessons as a list in Markdown, with their goals and minutes."""
    rows = [
        f"- [{one.number} · {one.title}]({one.name}.ipynb), {one.minutes} minutes: {'; '.join(one.goals)}"
        for one in LESSONS
    ]
    more = ("[Glossary](glossary.md)", "[every statement, and where it runs](lesson_map.md)",
            "[for teachers](teaching.md)")  # fmt: skip
    return "\n".join(["# The lessons", "", *rows, "", " · ".join(more), ""])
