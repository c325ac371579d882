"""What the notebook has set, and workers that have it as well.

Threads see all but those settings that are a thread's own. Processes are told what differs from how a new one begins. A library
that is not loaded is not asked, and has its settings from the moment on at which a worker imports it.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NamedTuple

from parmagic.model.words import describe
from parmagic.system.interrupts import held_back
from parmagic.workers.settings import libraries, logs, python, variables
from parmagic.workers.settings.setting import ALWAYS, Setting, same

TABLE: tuple[Setting, ...] = (*python.SETTINGS, *libraries.SETTINGS, *logs.SETTINGS)

_BY_NAME = {setting.name: setting for setting in TABLE}
_OF_THREADS = tuple(setting for setting in TABLE if setting.of_thread)


class Taken(NamedTuple):
    """What differs from the default: settings by their names, and what ContextVars hold, by module and name."""

    settings: dict[str, Any]
    variables: dict[tuple[str, str], Any]


def taken() -> Taken:
    """Return what the notebook has set, as it is now."""
    with held_back():  # some can only be read by changing them for a moment
        return Taken(_read(TABLE), variables.of_modules())


def of_threads() -> dict[str, Any]:
    """Return what a new thread would not have of it."""
    return _read(_OF_THREADS)


def in_thread(wanted: dict[str, Any]) -> None:
    """Have it in the calling thread."""
    for setting in _OF_THREADS:
        if setting.name in wanted:
            setting.apply(wanted[setting.name])


def _read(table: Iterable[Setting]) -> dict[str, Any]:
    found = {}
    for setting in table:
        if setting.module in sys.modules:
            try:
                value = setting.read()
            except Exception:  # noqa: BLE001, S112  (a library that is not what it was when this was written: its settings are not sent)
                continue
            if not same(value, setting.default):
                found[setting.name] = value
    return found


def look_around() -> None:
    """In a server, behind its imports: note what is set, so that its forks need not look; what they touch is copied for them."""
    _begun_with[:] = [_read(TABLE)]


def rehearse() -> None:
    """In a fork of that server: touch what will be touched, and change nothing."""
    for setting in TABLE:
        if setting.name == "warnings.filters":  # those of a notebook always differ
            setting.apply(setting.read())
    for has in _begun_with:
        Settled(has, []).have()


_begun_with: list[dict[str, Any]] = []


def after_fork(wanted: dict[str, Any]) -> None:
    """In a fork of the notebook: set what a fork changes, or has to change; all else is as it was."""
    for setting in TABLE:
        if setting.name in wanted and setting.name in {"logging levels and handlers", "warnings.filters"}:
            setting.apply(wanted[setting.name])


class Settled:
    """A worker process that has what the notebook has set; ``notes`` say what it could not have."""

    def __init__(self, wanted: dict[str, Any], notes: list[str]) -> None:
        self._wanted = wanted
        self._notes = notes
        self._modules = 0
        self._later: dict[str, list[Callable[[], object]]] = {}  # by the module that it waits for
        self._table = list(TABLE)
        for has in _begun_with:  # of all others, nothing is touched
            differ = [name for name, value in wanted.items() if name not in has or not same(value, has[name])]
            self._table = [_BY_NAME[name] for name in (*differ, *(has.keys() - wanted.keys()))]

    def have(self) -> None:
        """Set all that is to be set now: at the begin, and again where modules were imported meanwhile, which set some themselves."""
        if self._modules == len(sys.modules):
            return
        for setting in self._table:
            if setting.module in sys.modules:
                self._have(setting)
            elif setting.name in self._wanted and not self._modules:
                self._do_later(setting.module, partial(self._have, setting))
        self._table, self._modules = list(TABLE), len(sys.modules)

    def hold(self, held: dict[tuple[str, str], bytes]) -> None:
        """Let ContextVars of modules hold what they hold in the notebook; that is pickled."""
        for (module, name), packed in held.items():
            hold = partial(self._hold, module, name, packed)
            if module in sys.modules:
                hold()
            else:
                self._do_later(module, hold)

    def _have(self, setting: Setting) -> None:
        wanted = self._wanted.get(setting.name, setting.default)
        with self._noting(setting.name):
            if wanted is not ALWAYS and not same(setting.read(), wanted):
                setting.apply(wanted)

    def _hold(self, module: str, name: str, packed: bytes) -> None:
        with self._noting(f"The ContextVar {module}.{name}"):
            variables.find(module, name).set(pickle.loads(packed))

    @contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        """Let the body do without what cannot be set: it may well be that it needs it not."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  (of the library's, or of the user's classes)
            self._notes.append(f"{what} could not be set in a process as it is in the notebook: {describe(error, 200)}")

    def _do_later(self, module: str, what: Callable[[], object]) -> None:
        if not self._later:
            sys.meta_path.insert(0, _AtImport(self._later))
        self._later.setdefault(module, []).append(what)


class _AtImport:
    """Finds modules as all other finders do together, and does what waits for one when it has been imported."""

    def __init__(self, later: dict[str, list[Callable[[], object]]]) -> None:
        self._later = later

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in self._later:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((spec for finder in others if (spec := finder.find_spec(name, path, target)) is not None), None)
        if spec is not None and spec.loader is not None and not isinstance(spec.loader, type):
            spec.loader.exec_module = partial(self._execute, name, spec.loader.exec_module)  # type: ignore[method-assign]
        return spec

    def _execute(self, name: str, execute: Callable[[ModuleType], None], module: ModuleType) -> None:
        execute(module)
        for each in self._later.pop(name, ()):
            each()
