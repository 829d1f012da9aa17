"""The rules of the house, checked on every module: who imports whom, what stays pure, what exists only once.

The table is that of docs/ARCHITECTURE.md. Imports are read from the syntax tree, so that one inside a
function counts like one at the top; an import for type checkers alone counts as well.
"""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = PROJECT / "p2pnode"
LINES_MAX = 450

CORE = {"errors", "config", "wire", "torrent", "swarm", "tracker"}
IMPURE = {
    "aioquic", "asyncio", "os", "random", "secrets", "selectors", "shutil", "signal", "socket", "ssl",
    "subprocess", "tempfile", "threading", "time", "trio", "uuid",
}  # fmt: skip
PURE_EXCEPTIONS = {("random", "Random")}  # the type of the chance that a machine is given

BELOW_NODE = CORE | {"quic", "storage"}
MAY_IMPORT = {
    "errors": set(),
    "config": {"errors"},
    "wire": {"errors", "config"},
    "torrent": {"errors", "config", "wire.bencoding"},
    "swarm": {"errors", "config", "torrent", "wire.communication"},
    "tracker": {"errors", "config", "torrent", "wire.communication"},
    "quic": {"errors", "config"},
    "storage": {"errors", "config", "torrent"},
    "node": BELOW_NODE,
    "services": BELOW_NODE | {"node"},
    "assembly": BELOW_NODE | {"node", "services"},
    "testing": BELOW_NODE | {"node", "services", "assembly"},
    "web": {"errors", "config", "torrent", "node", "assembly", "testing"},
    "cli": {"errors", "config", "torrent", "node", "assembly", "testing"},
    "__main__": {"cli"},
    "__init__": {"errors", "node", "quic", "torrent"},  # what users are given
}

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.stat().st_size > 0)


def name_of(path: Path) -> str:
    """`wire/codec.py` → `wire.codec`."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


@functools.cache
def imports_of(path: Path) -> frozenset[tuple[str, str]]:
    """Every `(module, name)` that `path` imports; the name is empty for `import module`."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide who imports whom"
            found |= {(node.module or "", alias.name) for alias in node.names}
    return frozenset(found)


def own_imports(path: Path) -> Iterator[str]:
    """The modules of ours that `path` imports, without the leading `p2pnode.`."""
    for module, name in imports_of(path):
        if module == "p2pnode" and not name:
            yield "__init__"
        elif module == "p2pnode":
            is_module = (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()
            yield name if is_module else "__init__"
        elif module.startswith("p2pnode."):
            inner = module.removeprefix("p2pnode.")
            is_module = (PACKAGE / inner.replace(".", "/") / f"{name}.py").exists()
            yield f"{inner}.{name}" if is_module else inner


def allows(rule: str, module: str) -> bool:
    return module == rule or module.startswith(f"{rule}.")


every_module = pytest.mark.parametrize("path", MODULES, ids=name_of)


@every_module
def test_imports_only_what_the_table_allows(path: Path) -> None:
    part = name_of(path).partition(".")[0]
    assert part in MAY_IMPORT, f"{part} is not in the table"
    # The version is all that anybody may take from the package itself.
    allowed = MAY_IMPORT[part] | {part, "__init__"}
    wrong = sorted(m for m in own_imports(path) if not any(allows(rule, m) for rule in allowed))
    assert not wrong, f"{name_of(path)} must not import {wrong}"


@every_module
def test_core_is_pure(path: Path) -> None:
    if name_of(path).partition(".")[0] not in CORE:
        return
    impure = {
        f"{module}.{name}".rstrip(".")
        for module, name in imports_of(path) - PURE_EXCEPTIONS
        if module.partition(".")[0] in IMPURE
    }
    assert not impure, f"{name_of(path)} is core and imports {sorted(impure)}"
    coroutines = [node.name for node in ast.walk(tree_of(path)) if isinstance(node, ast.AsyncFunctionDef)]
    assert not coroutines, f"{name_of(path)} is core and has async def {coroutines}"


@every_module
def test_aioquic_stays_in_quic(path: Path) -> None:
    if any(module.partition(".")[0] == "aioquic" for module, _ in imports_of(path)):
        assert name_of(path).startswith("quic.") or name_of(path) == "services.http3"


@every_module
def test_private_names_of_aioquic_stay_in_their_rooms(path: Path) -> None:
    """A private attribute is foreign when this module neither defines nor assigns it."""
    if not name_of(path).startswith("quic.") or name_of(path).startswith("quic.aioquic_"):
        return
    tree = tree_of(path)
    ours = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            ours.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            ours.add(node.id)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            assert node.attr in ours, f"{name_of(path)}:{node.lineno} uses {node.attr}"
    for module, name in imports_of(path):
        if module.partition(".")[0] == "aioquic":
            assert not any(part.startswith("_") for part in f"{module}.{name}".split("."))


def caught_by(node: ast.AST) -> list[ast.expr | None]:
    """What an `except` clause or `contextlib.suppress` swallows; None for a bare `except:`.

    A clause that ends in a bare `raise` swallows nothing: it only tidies up.
    """
    if isinstance(node, ast.ExceptHandler):
        last = node.body[-1]
        if isinstance(last, ast.Raise) and last.exc is None:
            return []
        return [*node.type.elts] if isinstance(node.type, ast.Tuple) else [node.type]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
        return [*node.args]
    return []


def broad_handlers() -> list[str]:
    broad = {"Exception", "BaseException"}
    return [
        f"{name_of(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(tree_of(path))
        for caught in caught_by(node)
        if caught is None or (isinstance(caught, ast.Name) and caught.id in broad)
    ]


def test_one_guard_catches_everything_and_only_in_quic() -> None:
    found = broad_handlers()
    assert len(found) <= 1, f"`except Exception` belongs to the guard around aioquic alone: {found}"
    assert all(name.startswith("quic.") for name in found), found


@every_module
def test_nobody_prints(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{name_of(path)}:{node.lineno} prints: use click.echo in cli"


@every_module
def test_no_file_holds_two_ideas(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= LINES_MAX, f"{name_of(path)} has {lines} lines: split it"


@every_module
def test_no_room_is_named_after_nothing(path: Path) -> None:
    assert not {"utils", "util", "helpers", "helper", "base", "common", "misc"} & set(
        name_of(path).split(".")
    )


def modules_loaded_by(*arguments: str) -> set[str]:
    """Top-level names in `sys.modules` after `p2pnode ARGUMENTS` ended with 0."""
    program = (
        "import sys\n"
        "from p2pnode.cli.app import main\n"
        "try:\n"
        f"    main({list(arguments)!r})\n"
        "except SystemExit as exit:\n"
        "    assert not exit.code, exit.code\n"
        "sys.stderr.write('\\n'.join({name.partition('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("completion", "bash")])
def test_answers_that_need_no_node_load_none(arguments: tuple[str, ...]) -> None:
    loaded = modules_loaded_by(*arguments)
    assert "click" in loaded
    assert not loaded & {"trio", "aioquic", "cryptography", "rich", "msgspec", "asyncio"}


def test_each_limit_has_a_name_of_its_own() -> None:
    """A second one of the same name would silently be the only one."""
    names = [
        node.target.id
        for node in tree_of(PACKAGE / "config.py").body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]
    assert len(names) > 100
    assert sorted(names) == sorted(set(names))
