"""Settings of libraries: what differs from what they begin with, by the library's own functions where it has some."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any

from parmagic.workers.settings.setting import ALWAYS, Setting, call, of, pair, same

_ERRORS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}


def _pandas() -> dict[str, Any]:
    """Return the options that differ; they are looked up below ``get_option``, which warns of old ones."""
    config = of("pandas._config.config", "__dict__")
    found = {}
    for name, option in config["_registered_options"].items():
        value = config["_global_config"]
        for part in name.split("."):
            value = value[part]
        if value is not option.defval and not same(value, option.defval):
            found[name] = value
    return found


def _set_pandas(wanted: Mapping[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in _pandas().keys() - wanted.keys():
            of("pandas", "reset_option")(name)
        for name, value in wanted.items():
            of("pandas", "set_option")(name, value)


_SCREENS = frozenset({"backend", "backend_fallback", "interactive"})
"""What is about the notebook's screen, which a process has not."""


def _matplotlib() -> dict[str, Any]:
    first = of("matplotlib", "rcParamsOrig")
    now = dict.items(of("matplotlib", "rcParams"))  # below its own methods, which warn of old ones
    before = dict(dict.items(first))
    changed = [(name, value) for name, value in now if value is not before.get(name) and name not in _SCREENS]
    return {name: value for name, value in changed if not same(value, before.get(name))}


def _set_matplotlib(wanted: Mapping[str, Any]) -> None:
    now, first = of("matplotlib", "rcParams"), of("matplotlib", "rcParamsOrig")
    for name in _matplotlib().keys() - wanted.keys():
        dict.__setitem__(now, name, dict.get(first, name))
    dict.update(now, wanted)


def _sklearn() -> dict[str, Any]:
    first = of("sklearn._config", "_global_config")
    return {name: value for name, value in of("sklearn", "get_config")().items() if not same(value, first.get(name))}


def _set_sklearn(wanted: Mapping[str, Any]) -> None:
    of("sklearn", "set_config")(**{**of("sklearn._config", "_global_config"), **wanted})


def _polars() -> str:
    state = json.loads(of("polars", "Config").save(if_set=True))
    return json.dumps({**state, "environment": {}})  # its variables are the process's own, as all


def _set_polars(wanted: str) -> None:
    of("polars", "Config").load(wanted)


def _default_dtype() -> str:
    return str(of("torch", "get_default_dtype")()).removeprefix("torch.")


SETTINGS = (
    Setting("numpy.seterr", "numpy", call("numpy", "geterr"), lambda wanted: of("numpy", "seterr")(**wanted), _ERRORS, of_thread=True),
    pair("numpy", "geterrcall", "seterrcall", None, of_thread=True),
    pair("numpy", "getbufsize", "setbufsize", 8192, of_thread=True),
    Setting("numpy.set_printoptions", "numpy", call("numpy", "get_printoptions"),
            lambda wanted: of("numpy", "set_printoptions")(**wanted), ALWAYS),
    Setting("pandas.set_option", "pandas", _pandas, _set_pandas, {}),
    Setting("matplotlib.rcParams", "matplotlib", _matplotlib, _set_matplotlib, {}),
    Setting("sklearn.set_config", "sklearn", _sklearn, _set_sklearn, {}, of_thread=True),
    Setting("xarray.set_options", "xarray", lambda: dict(of("xarray", "get_options")()),
            lambda wanted: of("xarray", "set_options")(**wanted), ALWAYS),
    Setting("polars.Config", "polars", _polars, _set_polars, ALWAYS),
    Setting("torch.set_default_dtype", "torch", _default_dtype,
            lambda wanted: of("torch", "set_default_dtype")(of("torch", wanted)), "float32"),
    pair("torch", "is_grad_enabled", "set_grad_enabled", True, of_thread=True),
    pair("torch", "are_deterministic_algorithms_enabled", "use_deterministic_algorithms", False),
)  # fmt: skip
