"""FakeNotifier, with the suite that every notifier passes."""
# ruff: noqa: D102 - the names of the tests are the sentences

from dataclasses import dataclass, field

import pytest

from ml_assets.errors import AlertError
from ml_assets.interfaces import Alert
from ml_assets.interfaces.alerts import Notifier
from ml_assets.testing.alerts_suite import alert


@dataclass
class FakeNotifier:
    """A notifier in memory.

    Attributes:
        channels: Its channels.
        broken: Channels that fail.
        sent: (channel, alert) of all that arrived, oldest first.
    """

    channels: tuple[str, ...] = ("log",)
    broken: set[str] = field(default_factory=set)
    sent: list[tuple[str, Alert]] = field(default_factory=list)

    def send(self, channel: str, alert: Alert) -> None:
        """Send an alert over one channel.

        Raises:
            AlertError: If the channel is broken, or there is none of that name.
        """
        if channel not in self.channels:
            raise AlertError(f"There is no channel {channel!r}; there are {', '.join(self.channels)}.")
        if channel in self.broken:
            raise AlertError(f"The channel {channel} does not answer.")
        self.sent.append((channel, alert))


class NotifierSuite:
    """What every notifier does; subclass it and provide a fixture `notifier` whose channels work."""

    def test_its_channels_have_names_of_their_own(self, notifier: Notifier) -> None:
        assert notifier.channels
        assert len(set(notifier.channels)) == len(notifier.channels)
        assert not any("|" in name or not name for name in notifier.channels)

    def test_every_channel_takes_an_alert(self, notifier: Notifier) -> None:
        for channel in notifier.channels:
            notifier.send(channel, alert())

    def test_an_unknown_channel_is_an_error_that_names_those_there_are(self, notifier: Notifier) -> None:
        with pytest.raises(AlertError, match=notifier.channels[0]):
            notifier.send("pigeon", alert())
