"""`ser-bench corpora` and `ser-bench weights`: what can be downloaded, and what is on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ser_bench import corpora, weights
from ser_bench.cli.terminal_tables import print_json, print_table
from ser_bench.errors import ConfigError


def list_corpora(as_json: bool = False) -> None:
    """Print a table of the corpora.

    Args:
        as_json: print a list with one object per corpus.
    """
    if as_json:
        print_json([corpus_record(sheet) for sheet in corpora.SHEETS.values()])
        return
    rows = []
    for name, sheet in corpora.SHEETS.items():
        size = f"{sheet.clips:,} clips, {sheet.speakers} speakers" if sheet.clips else "your own clips"
        rows.append(
            (name, sheet.title, f"SYNTHETIC, {size}" if sheet.synthetic else size, sheet.language, sheet.licence)
        )
    print_table(("corpus", "title", "size", "language", "licence"), rows)


def corpus_record(sheet: corpora.DataSheet) -> dict[str, Any]:
    """Return what the list of corpora states on one of them; null where there is no official release."""
    return {
        "corpus": sheet.name,
        "title": sheet.title,
        "synthetic": sheet.synthetic,
        "clips": sheet.clips or None,
        "speakers": sheet.speakers or None,
        "labels": list(sheet.labels),
        "language": sheet.language,
        "licence": sheet.licence,
        "homepage": sheet.homepage,
        "how_to_get": sheet.how_to_get,
    }


def prepare_corpus(name: str | None, root: Path | None) -> bool:
    """Download a corpus and check the copy; return whether it is complete.

    Args:
        name: of the corpus.
        root: folder to download to; None: in the cache folder.

    Raises:
        ConfigError: no corpus is named, or there is none of this name.
        DownloadError: no source could deliver it.
    """
    corpora.prepare(_required(name, "prepare"), root)
    return verify_corpus(name, root)


def verify_corpus(name: str | None, root: Path | None) -> bool:
    """Print what a copy of a corpus holds and what is missing; return whether it is complete.

    Raises:
        ConfigError: no corpus is named, or there is none of this name.
        CorpusError: there is no copy in the folder.
    """
    inventory = corpora.verify(_required(name, "verify"), root)
    print("\n".join(inventory.lines()))
    return inventory.complete


def list_weights(as_json: bool = False) -> None:
    """Print a table of the pretrained weights.

    Args:
        as_json: print a list with one object per set of weights; `folder` is null where they are not downloaded.
    """
    folders = {name: weights.find(name) for name in weights.TABLE}
    if as_json:
        print_json(
            [
                {
                    "weights": name,
                    "licence": entry.licence,
                    "folder": str(folders[name]) if folders[name] else None,
                    "bytes": entry.size,
                    "repo": entry.repo,
                    "revision": entry.revision,
                }
                for name, entry in weights.TABLE.items()
            ]
        )
        return
    rows = [
        (
            name,
            f"{entry.size / 1e6:,.0f} MB",
            entry.licence,
            str(folders[name] or f"not here: ser-bench weights fetch {name}"),
        )
        for name, entry in weights.TABLE.items()
    ]
    print_table(("weights", "size", "licence", "folder"), rows)


def fetch_weights(names: Sequence[str]) -> None:
    """Download the named weights, else all but those of `by_name_only`; print the folder of each once it is there.

    Raises:
        WeightsError: a name is unknown, or a download failed.
    """
    for name in names or [name for name, entry in weights.TABLE.items() if not entry.by_name_only]:
        print(f"{name:32} {weights.fetch(name)}", flush=True)


def _required(name: str | None, action: str) -> str:
    if not name:
        raise ConfigError(f"no corpus is named: ser-bench corpora {action} NAME, one of {', '.join(corpora.SHEETS)}")
    return name
