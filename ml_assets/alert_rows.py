"""What every store of alerts asks of them, and says of those it does not know."""

from ml_assets.errors import AlertError
from ml_assets.interfaces.alerts import Alert
from ml_assets.texts import is_storable


def checked_alert(alert: Alert) -> Alert:
    """Return an alert.

    Raises:
        AlertError: If a text cannot be stored, or the key is empty.
    """
    if not alert.key:
        raise AlertError(f"The alert {alert.title!r} has no key. Expected what it is about, such as 'dead-letter/17'.")
    texts = {"key": alert.key, "kind": alert.kind, "title": alert.title, "body": alert.body}
    texts |= dict(zip(("team", "pipeline"), alert.pipeline, strict=True))
    for name, text in texts.items():
        if not is_storable(text):
            raise AlertError(
                f"The {name} of the alert {alert.key!r} holds a character that databases cannot store. Expected text "
                "without NUL and lone surrogates; write such values with repr()."
            )
    return alert


def unknown_alert(key: str) -> AlertError:
    """Return the error that says that no alert of this key was raised."""
    return AlertError(f"No alert {key!r} was raised, so that nothing can be said of sending it; raise it first.")
