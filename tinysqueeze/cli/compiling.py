"""Saying aloud that kernels are being compiled, which happens once on a machine and takes seconds."""

from tqdm.auto import tqdm

from tinysqueeze import kernels


def compile_kernels() -> None:
    """Compile what is not on disk yet, with a progress bar; silent if nothing is to be done."""
    if kernels.is_cached():
        return
    with tqdm(desc="compiling kernels (once)", unit="kernel") as bar:

        def report(done: int, total: int, name: str) -> None:
            bar.total = total
            bar.set_postfix_str(name, refresh=False)
            bar.update(done - bar.n)

        kernels.warm_up(report=report)
