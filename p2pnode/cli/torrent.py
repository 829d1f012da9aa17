"""`p2pnode torrent`: creates, shows and verifies `.torrent` files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from p2pnode import assembly
from p2pnode.cli.console import Console
from p2pnode.cli.options import absolute, selection_options
from p2pnode.cli.options import size as size_type
from p2pnode.cli.progress import hashing_progress, open_reporter
from p2pnode.cli.torrent_file import read_torrent_file, write_torrent_file
from p2pnode.cli.units import size_text
from p2pnode.cli.verb import VerbGroup
from p2pnode.errors import HashMismatch
from p2pnode.torrent import Magnet, Metainfo, Ranges, Selection, TorrentVersion, printable

TORRENT_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group(cls=VerbGroup)
def command() -> None:
    """Create, show and verify .torrent files; make magnet links.

    \b
    Examples:
      p2pnode torrent create movie.mkv -o movie.torrent --tracker udp://tracker.example.org:6969
      p2pnode torrent show movie.torrent
      p2pnode torrent verify movie.torrent movie.mkv
      p2pnode torrent magnet movie.torrent

    For a .torrent or a magnet link that `p2pnode get` shall fetch, see `p2pnode torrent create --help`.
    """


@command.command("create")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@selection_options
@click.option("-o", "--output", type=TORRENT_FILE, help="The file to write.  [default: PATH.torrent]")
@click.option("--v1", is_flag=True, help="BEP 3 alone. Without --v1 and --v2: both, a hybrid.")
@click.option("--v2", is_flag=True, help="BEP 52 alone.")
@click.option("--tracker", multiple=True, metavar="URL", help="Each one is a tier. Repeatable.")
@click.option("--web-seed", multiple=True, metavar="URL", help="Repeatable.")
@click.option("--piece-length", type=size_type, metavar="SIZE", help="A power of two from 16K on.")
@click.option("--private", is_flag=True, help="Only its trackers may give peers (BEP 27).")
@click.option("--comment", default="", help="A line for whoever looks at it.")
@click.pass_obj
def create_command(
    console: Console,
    *,
    path: Path,
    select: Selection,
    output: Path | None,
    v1: bool,
    v2: bool,
    tracker: tuple[str, ...],
    web_seed: tuple[str, ...],
    piece_length: int | None,
    private: bool,
    comment: str,
) -> None:
    """Make a .torrent of the file or directory PATH.

    \b
    Examples:
      p2pnode torrent create movie.mkv                  movie.mkv.torrent, v1 and v2 in one
      p2pnode torrent create photos --v2                one that `p2pnode get` can fetch
      p2pnode torrent create photos -o p.torrent --v2 --piece-length 1M

    With --v2 and without --piece-length and --private, its info hash is the file id that p2pnode gives to
    PATH: `p2pnode get` fetches it by the .torrent and by its magnet link. Of all others, `get` takes only
    the .torrent, not the magnet link, of a single file that has a v2 half.
    """
    if v1 and v2:
        raise click.UsageError("--v1 and --v2 together are the default: give none of them")
    version = TorrentVersion.V1 if v1 else TorrentVersion.V2 if v2 else TorrentVersion.HYBRID
    path = absolute(path)
    with open_reporter(console) as reporter:
        metainfo = assembly.torrent_of(
            path,
            version=version,
            piece_length=piece_length,
            trackers=[(url,) for url in tracker],
            web_seeds=web_seed,
            is_private=private,
            comment=comment,
            select=select,
            on_progress=hashing_progress(reporter, path),
        )
    target = output or Path(f"{path.name}.torrent")
    write_torrent_file(target, metainfo)
    if console.json:
        console.event({"event": "torrent_created", "path": str(target), **_description(metainfo)})
    else:
        console.data(str(target))


@command.command("show")
@click.argument("file", type=TORRENT_FILE)
@click.pass_obj
def show_command(console: Console, *, file: Path) -> None:
    """Show what a .torrent says.

    \b
    Examples:
      p2pnode torrent show movie.torrent
      p2pnode torrent show movie.torrent --json | jq -r .info_hash_v2
    """
    metainfo = read_torrent_file(file)
    if console.json:
        console.event(_description(metainfo))
        return
    for label, text in _lines(metainfo):
        console.data(f"{label:<14}{text}")
    for item in metainfo.files:
        console.data(f"  {size_text(item.size):>10}  {printable('/'.join(item.path))}")


@command.command("verify")
@click.argument("file", type=TORRENT_FILE)
@click.argument("path", type=click.Path(path_type=Path))
@click.pass_obj
def verify_command(console: Console, *, file: Path, path: Path) -> None:
    """Compare PATH with a .torrent, on all cores; names what is bad and ends with 12.

    PATH is the file or directory itself, or the directory that it lies in.

    \b
    Examples:
      p2pnode torrent verify movie.torrent movie.mkv
      p2pnode torrent verify photos.torrent ~/pictures/photos
    """
    metainfo = read_torrent_file(file)
    inner = path / metainfo.name
    target = inner if path.is_dir() and inner.exists() else path
    with open_reporter(console) as reporter:
        found = assembly.verify_path(metainfo, target, hashing_progress(reporter, target))
    runs = found.bad_pieces.ranges()
    if console.json:
        console.event(
            {
                "event": "torrent_verified",
                "ok": found.is_good,
                "bad_pieces": [index for first, count in runs for index in range(first, first + count)],
                "bad_files": {"/".join(parts): reason for parts, reason in found.bad_files.items()},
            }
        )
    else:
        _show_findings(console, metainfo, runs, found.bad_files)
    if found.is_zero_padded:
        console.warn("the last piece fits only with zeros up to the piece length, against BEP 3")
    if not found.is_good:
        raise HashMismatch(f"{str(target)!r} is not what {str(file)!r} says")


def _show_findings(
    console: Console, metainfo: Metainfo, bad_runs: Ranges, bad_files: Mapping[tuple[str, ...], str]
) -> None:
    if not bad_runs and not bad_files:
        console.data(f"{printable(metainfo.name)}: everything is right, {size_text(metainfo.size)}")
    for parts, reason in bad_files.items():
        console.data(f"{printable('/'.join(parts))}: {printable(reason)}")
    if bad_runs:
        runs = (str(first) if count == 1 else f"{first}-{first + count - 1}" for first, count in bad_runs)
        console.data(f"bad pieces: {', '.join(runs)}")


@command.command("magnet")
@click.argument("file", type=TORRENT_FILE)
@click.pass_obj
def magnet_command(console: Console, *, file: Path) -> None:
    """Print the magnet link of a .torrent, with the info hashes it has.

    \b
    Examples:
      p2pnode torrent create --v2 photos
      p2pnode get "$(p2pnode torrent magnet photos.torrent)"

    `p2pnode get` can fetch by it if the .torrent was made so, with --v2 and without --piece-length and
    --private.
    """
    metainfo = read_torrent_file(file)
    magnet = Magnet(
        info_hash_v1=metainfo.info_hash_v1,
        info_hash_v2=metainfo.info_hash_v2,
        name=metainfo.name,
        trackers=tuple(url for tier in metainfo.trackers for url in tier),
        web_seeds=metainfo.web_seeds,
    )
    if console.json:
        console.event({"event": "magnet", "magnet": str(magnet)})
    else:
        console.data(str(magnet))


def _description(metainfo: Metainfo) -> dict[str, Any]:
    """The object that `show --json` prints; keys are never renamed."""
    return {
        "name": metainfo.name,
        "info_hash_v1": metainfo.info_hash_v1,
        "info_hash_v2": metainfo.info_hash_v2,
        "size": metainfo.size,
        "piece_length": metainfo.piece_length,
        "pieces": metainfo.piece_count,
        "private": metainfo.is_private,
        "trackers": metainfo.trackers,
        "web_seeds": metainfo.web_seeds,
        "files": [{"path": "/".join(file.path), "size": file.size} for file in metainfo.files],
    }


def _lines(metainfo: Metainfo) -> list[tuple[str, str]]:
    """What a person is shown of it, label and text."""
    hashes = (("info hash v1", metainfo.info_hash_v1), ("info hash v2", metainfo.info_hash_v2))
    size = f"{size_text(metainfo.size)}, {metainfo.size} bytes"
    lines = [("name", printable(metainfo.name)), ("size", size)]
    lines += [(label, info_hash.hex()) for label, info_hash in hashes if info_hash is not None]
    lines.append(("pieces", f"{metainfo.piece_count} of {size_text(metainfo.piece_length)}"))
    if metainfo.is_private:
        lines.append(("private", "yes"))
    lines += [("tracker", printable(" ".join(tier))) for tier in metainfo.trackers]
    lines += [("web seed", printable(url)) for url in metainfo.web_seeds]
    if metainfo.comment:
        lines.append(("comment", printable(metainfo.comment)))
    return lines
