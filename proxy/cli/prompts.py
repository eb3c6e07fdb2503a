"""`proxy prompts`: stored prompts in the database. No server need be running; a running one follows within a second."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from msgspec import structs

from proxy.cli.output import json_option, print_json, print_table
from proxy.cli.settings import configuration_options, fail, read_config, store_problem
from proxy.config.edit import plain
from proxy.config.prompt_file import read_prompts, written
from proxy.pipeline.stored_prompts import resolve, unknown_prompt
from proxy.prompts.checked import checked_version, title_of
from proxy.prompts.compare import difference
from proxy.prompts.presets import preset_of, rendered
from proxy.prompts.uses import id_of, label_of, version_of
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.prompts import LabelMove, PromptHead, PromptUse, PromptVersion
from proxy.server.api.prompt_bodies import check_usable, shown, shown_head, shown_move, shown_version, use_of_version
from proxy.storage.base import StoreError
from proxy.storage.experiments import ExperimentStore, in_use
from proxy.storage.prompt_rows import PromptRefused, unknown_version
from proxy.storage.prompts import PromptStore
from proxy.storage.sqlite import sqlite_path

MAX_CHARS = 32 * 1024 * 1024  # of a rendered prompt
BY = "cli"  # the name recorded for moves of labels
_MOST = 1_000  # ids that an unknown one is compared with
_ROWS = 10_000  # versions, or moves of labels, of one prompt


@click.group()
def prompts() -> None:
    """Save, label, render and carry stored prompts."""


@prompts.command("list")
@click.option("--archived", is_flag=True, help="Archived prompts too.")
@json_option
@configuration_options
def list_prompts(archived: bool, as_json: bool, **flags: Any) -> None:
    """List the stored prompts, without their texts."""
    with _store(flags) as store:
        heads = store.page(archived=archived) if store.is_there else []
    if as_json:
        print_json({"prompts": [shown_head(head) for head in heads]})
    elif not heads:
        click.echo("No prompts. Save one: proxy prompts save ID FILE", err=True)
    else:
        rows = [[head.id, head.latest, _labels(head), _time(head), head.name] for head in heads]
        print_table(["ID", "LATEST", "LABELS", "CREATED", "NAME"], rows)


@prompts.command()
@click.argument("prompt_id", metavar="ID")
@click.option("--version", metavar="N", help="This version.")
@click.option("--label", metavar="LABEL", help="The version with this label.")
@json_option
@configuration_options
def show(prompt_id: str, version: str | None, label: str | None, as_json: bool, **flags: Any) -> None:
    """Show one version of a prompt: as the file that `import` reads."""
    with _stores(flags) as (store, experiments):
        head, found = _version_of(store, use_of_version(prompt_id, version, label))
        scores = experiments.scores(head.id)
    if as_json:
        print_json(shown(head, found, scores))
    else:
        labels = {label: at for label, at in head.labels.items() if at == found.version}
        click.echo(written([(structs.replace(head, labels=labels), [found])]), nl=False)


@prompts.command()
@click.argument("prompt_id", metavar="ID")
@json_option
@configuration_options
def versions(prompt_id: str, as_json: bool, **flags: Any) -> None:
    """List the versions of a prompt, newest first."""
    with _stores(flags) as (store, experiments):
        head = _head(store, prompt_id)
        scores = experiments.scores(prompt_id)
        found, before = [], 2**31
        while page := store.versions(prompt_id, before, _ROWS):  # a page holds at most a megabyte of text
            found += [shown_version(head, version, scores) for version in page]
            before = page[-1].version
    if as_json:
        print_json({"object": "list", "data": found, "has_more": False})
    else:
        headings = ["VERSION", "CREATED", "STATE", "LABELS", "SCORE", "MODEL", "VARIABLES", "NOTES"]
        print_table(headings, [_version_row(version) for version in found])


@prompts.command()
@click.argument("prompt_id", metavar="ID")
@click.argument("old", metavar="FROM")
@click.argument("new", metavar="TO")
@json_option
@configuration_options
def diff(prompt_id: str, old: str, new: str, as_json: bool, **flags: Any) -> None:
    """Show what differs between the versions FROM and TO of a prompt."""
    with _store(flags) as store:
        pair = [_version_of(store, use_of_version(prompt_id, number, None))[1] for number in (old, new)]
    found = difference(*pair)
    if as_json:
        print_json({"from": pair[0].version, "to": pair[1].version, **structs.asdict(found)})
    else:
        click.echo(found.text, nl=False)


@prompts.command()
@click.argument("prompt_id", metavar="ID")
@json_option
@configuration_options
def labels(prompt_id: str, as_json: bool, **flags: Any) -> None:
    """List where the labels of a prompt are and were, latest first."""
    with _store(flags) as store:
        head = _head(store, prompt_id)
        moves = [shown_move(move) for move in store.moves(prompt_id, _ROWS)]
    if as_json:
        print_json({"labels": head.labels, "history": moves})
    else:
        names = ("moved_at", "label", "version", "moved_by", "note")
        print_table(["MOVED", "LABEL", "VERSION", "BY", "NOTE"], [[move[name] for name in names] for move in moves])


@prompts.command()
@click.argument("prompt_id", metavar="ID")
@click.argument("file", type=click.File("r", encoding="utf-8"), metavar="FILE")
@click.option("--name", metavar="TEXT", help="Name of a new prompt, for people.")
@click.option("--model", metavar="NAME", help="Model for requests that name none, like auto:extraction.")
@click.option("--label", "labels", multiple=True, metavar="LABEL", help="Put this label on it; may be repeated.")
@click.option("--notes", metavar="TEXT", help="What is new, for people.")
@json_option
@configuration_options
def save(prompt_id: str, file: Any, labels: tuple[str, ...], as_json: bool, **flags: Any) -> None:
    """Save the text in FILE ("-": standard input) as the next version of a prompt, which may be new."""
    options = {name: flags.pop(name) for name in ("name", "model", "notes")}
    now_ns = time.time_ns()
    with _store(flags) as store:
        version = checked_version({"template": file.read(), "model": options["model"], "notes": options["notes"]})
        check_usable(version)
        version = structs.replace(version, created_ns=now_ns)
        marks = [label_of(label) for label in labels]
        name = id_of(prompt_id)
        if store.is_there and name in store.heads([name]):
            head, version = store.add_version(name, version, None, marks, BY)
        else:
            title = title_of(options["name"], name)
            new = PromptHead(id=name, name=title, labels=dict.fromkeys(marks, 1), created_ns=now_ns)
            head = store.create(new, version, BY)
    if as_json:
        print_json(shown(head, version, {}))
    else:
        variables = ", ".join(version.variables) or "none"
        click.echo(f"Saved version {version.version} of {head.id}. Variables: {variables}.")


@prompts.command()
@click.argument("prompt_id", metavar="ID")
@click.argument("label")
@click.argument("version")
@click.option("--note", metavar="TEXT", help="Why, for the history.")
@json_option
@configuration_options
def label(prompt_id: str, label: str, version: str, note: str | None, as_json: bool, **flags: Any) -> None:
    """Put LABEL on a VERSION of a prompt, from wherever it was. VERSION "none" takes it off."""
    with _store(flags) as store:
        number = None if version == "none" else version_of(version)
        move = LabelMove(label_of(label), number, time.time_ns(), BY, note)
        _head(store, prompt_id)
        head = store.move_label(prompt_id, move, None)
    if as_json:
        print_json(shown_head(head))
    else:
        click.echo(f"Labels of {head.id}: {_labels(head) or 'none'}. A running server follows within a second.")


@prompts.command()
@click.argument("prompt_id", metavar="ID")
@click.argument("values", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--version", metavar="N", help="This version.")
@click.option("--label", metavar="LABEL", help="The version with this label.")
@json_option
@configuration_options
def render(
    prompt_id: str, values: tuple[str, ...], version: str | None, label: str | None, as_json: bool, **flags: Any
) -> None:
    """Render a prompt. A VALUE that begins with @ is the name of a file that has it. No model is called."""
    with _store(flags) as store:
        use = use_of_version(prompt_id, version, label, dict(map(_value, values)))
        head, found = _version_of(store, use)
        if head.archived_ns is not None:
            raise BadRequest(f"The prompt {head.id} is archived.", param="id")
        if found.archived_ns is not None:
            raise BadRequest(unknown_version(head, found.version), param="version")
        messages = rendered(preset_of(found), use.variables, MAX_CHARS, "variables")
    if as_json:
        print_json({"template_id": head.id, "version": found.version, "messages": messages})
        return
    for message in messages:
        content = message.get("content")
        if found.template is None:
            click.echo(f"[{message['role']}]")
        click.echo(content if isinstance(content, str) else str(content))


@prompts.command()
@click.argument("prompt_id", metavar="ID")
@click.option("--version", metavar="N", help="Only this version.")
@click.option("--restore", is_flag=True, help="Restore an archived prompt.")
@json_option
@configuration_options
def archive(prompt_id: str, version: str | None, restore: bool, as_json: bool, **flags: Any) -> None:
    """End the use of a prompt, or of one version. Nothing is deleted."""
    if restore and version is not None:
        fail("--restore restores a whole prompt, not a single version.")
    with _store(flags) as store:
        _head(store, prompt_id)
        if restore:
            head = store.restore(prompt_id, None)
        elif version is not None:
            head = store.archive_version(prompt_id, version_of(version), None, time.time_ns())
        else:
            head = store.archive(prompt_id, None, time.time_ns())
    if as_json:
        print_json(shown_head(head))
    else:
        state = "can be used" if head.archived_ns is None else "is archived"
        click.echo(f"{head.id} {state}. Versions: {', '.join(map(str, head.live)) or 'none'}.")


@prompts.command()
@click.argument("prompt_id", required=False, metavar="[ID]")
@json_option
@configuration_options
def export(prompt_id: str | None, as_json: bool, **flags: Any) -> None:
    """Print all prompts, or one, as a YAML file that `import` reads."""
    with _store(flags) as store:
        if prompt_id is not None:
            _head(store, prompt_id)
        text = written(store.all(prompt_id) if store.is_there else [])
    if as_json:
        print_json(plain(text.encode(), "export"))
    else:
        click.echo(text, nl=False)


@prompts.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE")
@json_option
@configuration_options
def import_file(file: Path, as_json: bool, **flags: Any) -> None:
    """Add the prompts of a YAML file, all or none. Existing versions stay unchanged."""
    with _store(flags) as store:
        found = read_prompts(file.read_bytes(), str(file), check_usable)
        numbers = store.bring(found, time.time_ns(), BY)
    if as_json:
        print_json({"imported": [{"id": name, "versions": of} for name, of in numbers.items()]})
    else:
        for name, of in numbers.items():
            click.echo(f"{name}: versions {', '.join(map(str, of))}")


@contextmanager
def _store(flags: dict[str, Any]) -> Iterator[PromptStore]:
    """The prompts of the configuration's database. A refusal by them or by a check ends the command with exit
    code 1.
    """
    with _stores(flags) as (store, _):
        yield store


@contextmanager
def _stores(flags: dict[str, Any]) -> Iterator[tuple[PromptStore, ExperimentStore]]:
    """The same with the experiments, which know the scores of versions."""
    config = read_config(flags, os.environ)
    try:
        path = sqlite_path(config.storage.url)
        yield PromptStore(path, in_use=in_use), ExperimentStore(path)
    except StoreError as error:
        store_problem(error)
    except (PromptRefused, ProxyError, UnicodeDecodeError) as error:
        click.echo(f"proxy: {error}", err=True)
        sys.exit(1)


def _head(store: PromptStore, prompt: str) -> PromptHead:
    """Raises ProxyError 404."""
    is_there = store.is_there
    head = store.heads([prompt]).get(prompt) if is_there else None
    if head is None:
        raise unknown_prompt(prompt, store.ids(_MOST) if is_there else [])
    return head


def _version_of(store: PromptStore, use: PromptUse) -> tuple[PromptHead, PromptVersion]:
    """Raises ProxyError 404."""
    head = _head(store, use.id)
    number, _ = resolve(head, use)
    version = store.version(use.id, number)
    if version is None:
        raise ProxyError(unknown_version(head, number), status=404, code="not_found", param="version")
    return head, version


def _value(given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not equals:
        fail(f"{given[:64]!r}: write a variable as NAME=VALUE, or NAME=@FILE.")
    if not value.startswith("@"):
        return name, value
    try:
        return name, Path(value[1:]).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        fail(f"{name}: the file {value[1:]} cannot be read: {error}.")


def _labels(head: PromptHead) -> str:
    return ",".join(f"{label}={at}" for label, at in sorted(head.labels.items()))


def _version_row(version: dict[str, Any]) -> list[object]:
    state = "usable" if version["archived_at"] is None else "archived"
    score = None if version["performance_score"] is None else f"{version['performance_score']:.3f}"
    labels, variables = (",".join(version[name]) or None for name in ("labels", "variables"))
    notes = " ".join((version["notes"] or "").split()) or None
    return [version["version"], version["created_at"], state, labels, score, version["model"], variables, notes]


def _time(head: PromptHead) -> str:
    return str(shown_head(head)["created_at"])
