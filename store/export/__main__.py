"""Exports a store as shards for WebDataset or as Parquet for Hugging Face datasets; killed, it goes on where it stopped.

    python -m store.export labels.zarr shards --format webdataset
    python -m store.export labels.zarr hub --format datasets --arrays mouth,audio,similarity --licence cc-by-4.0

Exit code 0 when all is there, 1 if a clip is damaged or a disk full (run it again to go on), 2 if nothing was changed.
"""

from __future__ import annotations

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

from pathlib import Path

import click

from concord import command
from concord.text import byte_size, counted
from store.export.folder import CARD, Export, claim
from store.export.plan import KINDS, Request, plan
from store.layout import StoreError
from store.reader import Reader


def fill(export: Export, reader: Reader) -> None:
    """Write what is missing of an export; ends the command where a clip is damaged."""
    waiting = export.waiting
    for number, shard in enumerate(waiting, 1):
        try:
            found = export.write(reader, shard)
        except StoreError as error:
            command.fail(f"Error: {error}; what is finished in {export.folder} stays: run it again to go on", 1)
        clips, size = counted(found["clips"], "clip"), byte_size(found["bytes"])
        command.say(f"{shard.name}: {clips}, {size} ({number} of {len(waiting)})", err=True)
    if not export.complete:
        export.close(reader)


def _names(context: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Names between commas."""
    return None if value is None else tuple(dict.fromkeys(name.strip() for name in value.split(",")))


@click.command(
    cls=command.Command,
    epilog="Example: python -m store.export labels.zarr shards --format webdataset --licence cc-by-4.0",
)
@click.argument("store")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--format", "kind", type=click.Choice(list(KINDS)), required=True, help="For which library.")
@click.option(
    "--arrays",
    callback=_names,
    metavar="NAMES",
    help="Frame arrays, between commas.  [default: all but those of a second face]",
)
@click.option(
    "--shard-size",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    metavar="MB",
    help="Arrays in one file, before compression; a clip is never divided.",
)
@click.option("--licence", default="", help="Licence of the clips, such as cc-by-4.0, for the card.")
@click.option("--attribution", default="", help="Whom to name, for the card.")
@command.storage_options()
def main(
    store: str,
    out: Path,
    kind: str,
    arrays: tuple[str, ...] | None,
    shard_size: int,
    licence: str,
    attribution: str,
    options: dict[str, str],
) -> None:
    """Export the store at STORE to the folder OUT, which must be new, empty, or an export that was stopped."""
    reader = Reader(store, options)
    made = claim(out, plan(reader, Request(kind, arrays, shard_size * 1_000_000, licence, attribution)))
    fill(made, reader)
    size, left = sum(one["bytes"] for one in made.done.values()), made.plan.left_out
    clips, shards = counted(made.plan.about["clips"], "clip"), counted(len(made.plan.shards), "file")
    out_of = f"; {counted(left, 'clip that is', 'clips that are')} not done left out" if left else ""
    command.say(f"{out}: {clips} in {shards}, {byte_size(size)}{out_of}")
    if made.kept:
        command.say(f"{out / CARD} is not as it was written, so it stays as it is", err=True)
    elif not licence:
        command.say("the card states no licence: give --licence, and --attribution, before you pass it on", err=True)


if __name__ == "__main__":
    main()
