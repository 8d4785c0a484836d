"""The entry point of `ml-assets`: its commands, and errors as messages instead of tracebacks."""

import gc
import sys

import click

from ml_assets.errors import MlAssetsError

COMMANDS = {
    "access": "ml_assets.cli.access:access",
    "alerts": "ml_assets.cli.alerts:alerts",
    "approvals": "ml_assets.cli.approvals:approvals",
    "automation": "ml_assets.cli.automation:automation",
    "backfill": "ml_assets.cli.backfill:backfill",
    "compute": "ml_assets.cli.compute:compute",
    "cluster": "ml_assets.cli.cluster:cluster",
    "dead-letters": "ml_assets.cli.dead_letters:dead_letters",
    "demo": "ml_assets.cli.demo:demo",
    "deploy": "ml_assets.cli.deploy:deploy",
    "dev": "ml_assets.cli.dev:dev",
    "dossier": "ml_assets.cli.dossier:dossier",
    "experiment": "ml_assets.cli.experiment:experiment",
    "history": "ml_assets.cli.history:history",
    "inbox": "ml_assets.cli.inbox:inbox",
    "ledger": "ml_assets.cli.ledger:ledger",
    "new": "ml_assets.cli.new:new",
    "pause": "ml_assets.cli.pause:pause",
    "policy": "ml_assets.cli.policy:policy",
    "queue": "ml_assets.cli.queue:queue",
    "resume": "ml_assets.cli.pause:resume",
    "rollback": "ml_assets.cli.rollback:rollback",
    "schema": "ml_assets.cli.validate:schema",
    "spend": "ml_assets.cli.spend:spend",
    "status": "ml_assets.cli.status:status",
    "validate": "ml_assets.cli.validate:validate",
    "waivers": "ml_assets.cli.waivers:waivers",
}


class LazyGroup(click.Group):
    """Imports a command when it is asked for, so that one command does not pay for the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        import importlib

        module, _, name = COMMANDS[cmd_name].partition(":")
        return getattr(importlib.import_module(module), name)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="ml-assets")
def cli() -> None:
    """Governed machine-learning pipelines as Dagster assets."""


def main() -> None:
    """Run the command line; an error that ml_assets explains ends with its message and code 1."""
    try:
        cli()
    except MlAssetsError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    finally:
        gc.freeze()  # or Python destroys every object of every library one by one before it ends: half a second
