"""`ml-assets access`: the keys of people who may decide, and who they are."""

from datetime import UTC, datetime
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ml_assets.approvals.keys import SUFFIX, PersonEntry, add_trial_person, write_new_key
from ml_assets.cli.arguments import current_project
from ml_assets.cli.project import Project
from ml_assets.cli.tables import add_row, make_console
from ml_assets.errors import ApprovalError, Problem
from ml_assets.interfaces import Person
from ml_assets.policy.people import read_people
from ml_assets.yaml_positions import load_yaml


@click.group()
def access() -> None:
    """Make keys, and show who may decide."""


@access.command("new-key")
@click.argument("name")
@click.option(
    "--role", "roles", multiple=True, default=("model_reviewer",), show_default=True, help="A role; may be repeated."
)
@click.option("--team", "teams", multiple=True, default=("*",), show_default=True, help="A team, or * for all.")
@click.option("--login", "logins", multiple=True, help="A name under which NAME launches runs.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Key file; NAME.pem among your keys.")
@click.option("--no-passphrase", is_flag=True, help="Do not encrypt the file.")
@click.option("--trial", is_flag=True, help="Also let the key count on this machine, to try things out.")
def new_key(
    name: str,
    roles: tuple[str, ...],
    teams: tuple[str, ...],
    logins: tuple[str, ...],
    out: Path | None,
    *,
    no_passphrase: bool,
    trial: bool,
) -> None:
    """Make a key for NAME and print what to add to policies/people.yaml."""
    project = current_project()
    path = out or project.profile.keys_folder / f"{name}{SUFFIX}"
    today = datetime.now(UTC).date()
    draft = PersonEntry(name=name, logins=logins, roles=roles, teams=teams, key="0" * 64, effective_from=today)
    _require_valid(draft)
    trial_file = _trial_file(project, name) if trial else None
    passphrase = None
    if not no_passphrase and not path.exists():
        passphrase = click.prompt("Passphrase for the key", hide_input=True, confirmation_prompt=True, err=True)
    key = write_new_key(path, passphrase=passphrase)
    entry = PersonEntry(name=name, logins=logins, roles=roles, teams=teams, key=key, effective_from=today)
    click.echo(f"Wrote {path} (mode 0600). It never leaves this machine; what follows may.\n")
    click.echo("Under `people:` of policies/people.yaml:\n")
    click.echo(entry.to_yaml())
    if not logins:
        click.echo(f"\nAdd to `logins` the names under which {name} launches runs: nobody approves their own.")
    if trial_file is not None:
        add_trial_person(trial_file, entry)
        click.echo(
            f"\nAdded to {trial_file} too: the key counts on this machine only, to try things out. Whoever can write "
            "that file can approve here; elsewhere policies/people.yaml decides."
        )


@access.command("list")
def list_people() -> None:
    """Show who may decide: roles, teams, logins, and keys with when they count."""
    project, console = current_project(), make_console()
    people = project.profile.services().policy.people()
    if not people:
        console.print("Nobody may decide yet; `ml-assets access new-key NAME` makes a key.", highlight=False)
        return
    table = Table(header_style="bold", box=SIMPLE_HEAD)
    for column in ("person", "roles", "teams", "logins", "keys", "declared in"):
        table.add_column(column, overflow="fold", no_wrap=column in {"person", "keys"})
    for person in sorted(people.values(), key=lambda person: person.name):
        mark = "trial: this machine only\n" if person.trial else ""
        add_row(
            table,
            person.name,
            "\n".join(person.roles) or "–",
            "\n".join(person.teams) or "–",
            "\n".join(person.logins) or "–",
            _keys(person),
            f"{mark}{person.file}:{person.line}",
        )
    console.print(table)


def _keys(person: Person) -> str:
    lines = [
        f"{key.value[:12]}… from {key.effective_from:%Y-%m-%d}"
        + (f" until {key.expires:%Y-%m-%d}" if key.expires else "")
        for key in person.keys
    ]
    return "\n".join(lines) or "none"


def _require_valid(entry: PersonEntry) -> None:
    """Refuse, before a key is made, what the people file would not take."""
    problems: list[Problem] = []
    if not entry.name:
        raise ApprovalError("bad_entry", "The name is empty; expected a name such as olga. No key was made.")
    document = load_yaml(f"owner: check\npeople:\n{entry.to_yaml()}\n", file="the new entry")
    read_people(document, problems)
    if problems:
        wrong = "; ".join(f"{problem.field}: {problem.found}, expected {problem.expected}" for problem in problems)
        raise ApprovalError("bad_entry", f"The people file would not take this entry: {wrong}. No key was made.")


def _trial_file(project: Project, name: str) -> Path:
    """Return the file of people of this machine, when the name may stand in it."""
    file = project.profile.trial_people
    if file is None:
        raise ApprovalError(
            "no_trial",
            "People come from the policy tree alone here (ML_ASSETS_POLICIES is set), so no trial key would count. "
            "Leave --trial out, and have the printed entry added to people.yaml.",
        )
    known = project.profile.services().policy.people().get(name)
    if known is not None and not known.trial:
        raise ApprovalError(
            "name_taken",
            f"{name} is declared in {known.file}:{known.line}; a trial key needs a name of its own. Choose another.",
        )
    return file
