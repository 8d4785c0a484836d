"""Texts that others wrote: what databases can hold of them, and what terminals and logs may show."""


def is_storable(text: str) -> bool:
    """Whether every database can hold a text: it has no NUL and no lone surrogate."""
    return "\x00" not in text and text == text.encode(errors="replace").decode()


def storable_text(text: str) -> str:
    r"""Return a text with what databases cannot hold written as escapes; what failed must be recorded in any case.

    >>> storable_text("a\x00b")
    'a\\x00b'
    """
    return text.replace("\x00", "\\x00").encode(errors="backslashreplace").decode()


def visible_text(text: str, *, keep: str = "") -> str:
    r"""Return a text with what no terminal or log should get raw, such as escape sequences, written as escapes.

    Args:
        text: What somebody else wrote.
        keep: Characters that stay although they cannot be printed, such as line ends.

    >>> visible_text("a\x1b[2Jb\nc")
    'a\\x1b[2Jb\\nc'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)
