"""What a command of the command line says: good words in one line, or one message and its code."""

from collections.abc import Sequence

from tests.e2e.governed import Governed


def typed(cases: Sequence[tuple[tuple[str, ...], int, str]]) -> list[str]:
    """Return the name of each case: what is typed."""
    return [" ".join(arguments) for arguments, _, _ in cases]


def said(governed: Governed, *arguments: str) -> str:
    """Return what a command that ends well prints, in one line."""
    return " ".join(governed.say(*arguments).stdout.split())


def refused(governed: Governed, *arguments: str, code: int = 1) -> str:
    """Return the one message of a command that is refused, in one line."""
    done = governed.run(*arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stdout == ""
    assert done.stderr.count("Error: ") == 1
    return " ".join(done.stderr[done.stderr.index("Error: ") :].split()).removeprefix("Error: ")
