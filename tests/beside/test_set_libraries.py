"""Settings of libraries: workers of all kinds have them, those set back are set back, and no worker imports a library for them."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

SET = {
    "sklearn": (
        "import sklearn", "sklearn.set_config(transform_output='pandas', assume_finite=True)",
        "(sklearn.get_config()['transform_output'], sklearn.get_config()['assume_finite'])", ("pandas", True),
        "sklearn.set_config(transform_output='default', assume_finite=False)", ("default", False),
    ),
    "xarray": (
        "import xarray", "xarray.set_options(keep_attrs=True, display_width=33)",
        "(xarray.get_options()['keep_attrs'], xarray.get_options()['display_width'])", (True, 33),
        "xarray.set_options(keep_attrs='default', display_width=80)", ("default", 80),
    ),
    "polars": (
        "import polars", "_ = polars.Config.set_tbl_rows(3).set_float_precision(2)",
        "(polars.Config.state()['POLARS_FMT_MAX_ROWS'], str(polars.Series([1 / 3]))[-6:-2])", ("3", "0.33"),
        "_ = polars.Config.restore_defaults()", (None, "3333"),
    ),
    "torch": (
        "import torch", "torch.set_default_dtype(torch.float64); _ = torch.set_grad_enabled(False)",
        "(str(torch.ones(1).dtype), torch.is_grad_enabled())", ("torch.float64", False),
        "torch.set_default_dtype(torch.float32); _ = torch.set_grad_enabled(True)", ("torch.float32", True),
    ),
}
HERE = [library for library in SET if library != "torch" or find_spec("torch")]
"""All, but for one that is too large to be installed for that; whoever has it runs it as well."""


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("library", HERE)
def test_settings_of_a_library(ip, library):
    """In threads, in processes that have it imported ahead, in new ones, in forks, and where the body itself imports it."""
    pytest.importorskip(library)
    load, how, look, wanted, back, first = SET[library]
    lines = ["threads=2", "procs=2", "procs=2 --start-method spawn", "serial"]
    if library not in {"polars", "torch"}:  # whose threads no fork has
        lines.append("procs=2 --start-method fork")
    ip(load)
    ip(how)
    try:
        for line in lines:
            assert ip(f"%parallel {line} -q --once {look} for n in range(4)").results == [wanted] * 4, line
        late = f"%%parallel procs=2 --start-method spawn -q --once for n in range(2)\n{load.replace(library, f'{library} as there')}\n{look.replace(library, 'there')}"
        assert ip(late).results == [wanted] * 2
    finally:
        ip(back)
    for line in lines:
        assert ip(f"%parallel {line} -q --once {look} for n in range(4)").results == [first] * 4, line


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("library", HERE)
def test_nobody_imports_it_for_that(ip, library):
    """A new process whose body does not need the library does without."""
    pytest.importorskip(library)
    load, how, _, _, back, _ = SET[library]
    ip(f"import sys; {load}")
    ip(how)
    try:
        run = ip(f"%parallel procs=2 --start-method spawn -q --once {library!r} in sys.modules for n in range(2)")
    finally:
        ip(back)
    assert run.results == [False, False]
