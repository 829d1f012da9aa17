"""The file of settings: defaults for options, in TOML.

::

    server-addr = "files.example.org:8080"      # for every verb that takes it
    pin = "5f0c…"

    [peer]                                      # for `p2pnode peer` alone
    files-dir = "/srv/files"
    mirror = true

A flag beats `P2PNODE_*`, which beats this file, which beats the default. Keys are the options' long names; a
key that nobody knows is an error, since a setting that silently does nothing is worse than none.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import platformdirs

from p2pnode.errors import ConfigError

SHARED: Final = frozenset({
    "json", "lan", "limit_down", "limit_peer", "limit_up", "log_level", "no_color", "no_verify_tls", "pin", "qlog",
    "server_addr", "server_cert", "upload_slots",
})  # fmt: skip
"""Settings that may stand before the first table, for every verb that has them."""

Settings = dict[str, Any]


def default_path() -> Path:
    """`$XDG_CONFIG_HOME/p2pnode/config.toml`."""
    return platformdirs.user_config_path("p2pnode") / "config.toml"


def load_settings(path: Path | None, verbs: Collection[str]) -> Settings:
    """The defaults that a file gives, as click's `default_map`; without a path that of `default_path()`.

    Raises ConfigError (one line) for a file that cannot be read, is no TOML, or has an unknown key or table.
    The keys of a table are checked by `check_settings` when its verb runs.
    """
    chosen = path or default_path()
    try:
        values = tomllib.loads(chosen.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if path is None:
            return {}
        raise ConfigError(f"{path}: there is no such file of settings") from None
    except OSError as error:
        raise ConfigError(f"{chosen}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{chosen}: {error}") from None
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    _refuse_unknown(tables, verbs, f"{chosen}: no verb is called")
    shared = _named({key: value for key, value in values.items() if key not in tables})
    _refuse_unknown(shared, SHARED, f"{chosen}: no shared setting (before the first table) is called")
    return shared | {verb: _table(tables.get(verb, {}), shared) for verb in verbs}


def check_settings(
    settings: Mapping[str, Any], options: Iterable[str], verb: str, *, repeatable: Collection[str] = ()
) -> None:
    """Refuse a key of a verb's table that is none of its options, and a list where one value belongs."""
    _refuse_unknown(settings.keys() - SHARED, set(options), f"settings [{verb}]: no option is called")
    for key, value in settings.items():
        if isinstance(value, list) != (key in repeatable):
            wanted = "a list" if key in repeatable else "one value"
            raise ConfigError(f"settings [{verb}]: {key.replace('_', '-')!r} takes {wanted}, not {value!r}")


def _table(table: Mapping[str, Any], shared: Settings) -> Settings:
    """A verb's own settings over the shared ones; those of `[torrent.create]` one level deeper."""
    inner = {key: _table(value, shared) for key, value in table.items() if isinstance(value, dict)}
    own = _named({key: value for key, value in table.items() if key not in inner})
    return shared | own | inner


def _named(values: Mapping[str, Any]) -> Settings:
    """`files-dir` and `files_dir` are one name; values are as a command line would give them."""
    return {key.replace("-", "_"): _typed(value) for key, value in values.items()}


def _typed(value: object) -> object:
    """`port = 8080` is as good as `port = "8080"`; flags and lists stay what they are."""
    if isinstance(value, list):
        return [_typed(item) for item in value]
    return value if isinstance(value, bool) else str(value)


def _refuse_unknown(keys: Iterable[str], known: Collection[str], complaint: str) -> None:
    for key in sorted(set(keys) - set(known)):
        close = difflib.get_close_matches(key, known, n=1)
        hint = f" (did you mean {close[0].replace('_', '-')!r}?)" if close else ""
        raise ConfigError(f"{complaint} {key.replace('_', '-')!r}{hint}")
