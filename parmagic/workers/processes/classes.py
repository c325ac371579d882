"""Classes that no other process finds by their names: how they are taken apart, and made anew there, once, with all that they have.

In a worker that happens without a word: what metaclasses and ``__init_subclass__`` of the notebook's had to do once has been done
where the class was defined, and would be done here among names and attributes that are yet to come.
"""

from __future__ import annotations

import sys
import types
import typing
from types import MemberDescriptorType
from typing import Any
from weakref import WeakSet

from cloudpickle import cloudpickle as cloud

from parmagic.model.classes import module_of

_bare: WeakSet[Any] = WeakSet()
"""Classes that were made here and have nothing yet; one that is known already keeps what it has."""


def taken_apart(kind: Any, _: Any, arguments: Any, state: Any, *_rest: Any) -> tuple[Any, ...]:
    """Return how a class is made with its slots and its qualified name, and gets its attributes, those that a base has as well.

    What cloudpickle adds as mere names later makes no slots: instances would have a ``__dict__``, and not come back as that class.
    """
    (constructor, name, bases, keywords, *more), (attributes, *_) = arguments, state
    space = vars(kind)
    fields = {**{key: each for key, each in space.items() if key not in _NOT_SET}, **attributes}
    keywords = {**keywords, "__qualname__": kind.__qualname__}
    if "_fields" in space and "__new__" in space and issubclass(kind, tuple):
        bases = kind.__bases__  # not typing.NamedTuple, which would make one without fields
        keywords["__new__"] = _of_values  # until its own comes: one that leads to its class may be made before that
    if "__slots__" in space:
        slots = [key for key, each in space.items() if type(each) is MemberDescriptorType and each.__objclass__ is kind]
        fields = {key: each for key, each in fields.items() if key not in slots}
        keywords["__slots__"] = (*slots, *(key for key in ("__dict__", "__weakref__") if key in space))
    if typing.is_typeddict(kind):
        return _typed_dict, (constructor, name, kind.__bases__, keywords, *more), fields, None, None, _set
    return made, (constructor, name, bases, keywords, *more), fields, None, None, _set


def _typed_dict(meta: type, name: str, bases: tuple[Any, ...], space: dict[str, Any], tracked: str | None, _: Any) -> Any:
    """Make a ``TypedDict`` as its metaclass does, which takes only others, or none, for the bases that it forgets."""
    known = _known(tracked)
    return _noted(cloud._lookup_class_or_track(tracked, type.__new__(meta, name, bases, dict(space)))) if known is None else known  # noqa: SLF001


def _of_values(kind: Any, *values: Any) -> Any:
    """Make a named tuple of a class that has nothing yet."""
    return tuple.__new__(kind, values)


def enum_taken_apart(kind: Any, _: Any, arguments: Any, state: Any, *_rest: Any) -> tuple[Any, ...]:
    """Return how an enumeration is made with all of its names, those of several flags as well; members get what they had."""
    (bases, name, qualname, _members, *more), (attributes, *_) = arguments, state
    members = dict(kind.__members__)
    fields = {key: each for key, each in attributes.items() if key not in members}
    fields.update((key, each) for key, each in vars(kind).items() if key == "__static_attributes__")
    beside = {key: {own: each for own, each in vars(member).items() if own not in _OF_MEMBERS} for key, member in members.items()}
    values = {key: member.value for key, member in members.items()}
    return _enum_made, (bases, name, qualname, values, *more), (fields, beside), None, None, _set_enum


_NOT_SET = {
    "__annotate_func__", "__annotations_cache__", "__dict__", "__doc__", "__module__", "__qualname__", "__slotnames__", "__slots__",
    "__weakref__", "_abc_impl",
}  # fmt: skip
_OF_MEMBERS = {"_value_", "_name_", "__objclass__", "_sort_order_"}


def _known(tracked: str | None) -> Any:
    return cloud._DYNAMIC_CLASS_TRACKER_BY_ID.get(tracked)  # noqa: SLF001


def _noted(made: Any) -> Any:
    if getattr(made, "__abstractmethods__", None):
        made.__abstractmethods__ = frozenset()  # its own methods are yet to come, and instances may come before
    _bare.add(made)
    return made


def made(meta: type, name: str, bases: tuple[Any, ...], space: dict[str, Any], tracked: str | None, extra: Any) -> Any:
    """Return a bare class, made as a ``class`` statement does."""
    known = _known(tracked)
    return _noted(cloud._make_skeleton_class(meta, name, bases, space, tracked, extra)) if known is None else known  # noqa: SLF001


def made_quietly(meta: type, name: str, bases: tuple[Any, ...], space: dict[str, Any], tracked: str | None, extra: Any) -> Any:
    """Return a bare class; nothing of the notebook's is called, only what libraries do with a new class is done."""
    known = _known(tracked)
    if known is not None:
        return known
    way = next(each for each in meta.__mro__ if module_of(each) != "__main__")
    resolved = types.resolve_bases(bases)
    owner = _hooked(resolved)
    hook = vars(owner)["__init_subclass__"] if owner else None
    if owner:
        owner.__init_subclass__ = classmethod(lambda cls, **_: super(owner, cls).__init_subclass__())
    try:
        if way is meta:
            return made(meta, name, bases, space, tracked, extra)
        space = {sys.intern(key): each for key, each in space.items()} | ({} if resolved is bases else {"__orig_bases__": bases})
        return _noted(cloud._lookup_class_or_track(tracked, way.__new__(meta, name, tuple(resolved), space)))  # noqa: SLF001
    finally:
        if owner:
            owner.__init_subclass__ = hook


def _hooked(bases: Any) -> Any:
    """Return the class of the notebook's whose ``__init_subclass__`` would be called for a class with these bases."""
    for base in bases:
        for each in base.__mro__:
            if "__init_subclass__" in vars(each):
                if module_of(each) == "__main__":
                    return each
                break
    return None


def _enum_made(bases: Any, name: str, qualname: str, members: dict[str, Any], module: str, tracked: str | None, extra: Any) -> Any:
    known = _known(tracked)
    if known is not None:
        return known
    return _noted(cloud._make_skeleton_enum(bases, name, qualname, members, module, tracked, extra))  # noqa: SLF001


def _set(kind: Any, attributes: dict[str, Any]) -> None:
    if kind in _bare:
        _bare.discard(kind)
        cloud._class_setstate(kind, (attributes, {}))  # noqa: SLF001


def _set_enum(kind: Any, state: Any) -> None:
    attributes, beside = state
    if kind in _bare:
        _set(kind, attributes)
        for name, fields in beside.items():
            vars(kind[name]).update(fields)
