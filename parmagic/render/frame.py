"""What a notebook shows of a run that is a page or a file of its own: within the output, with no server behind it."""

from __future__ import annotations

import base64
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

from parmagic.render import chrome
from parmagic.render.page import page_and_height

if TYPE_CHECKING:
    from parmagic.render import View

_LOWEST = 120

_HIGHEST = 2000
"""Pixels that a frame takes at most where nobody has said how high it should be: of many or deep lanes the last are scrolled to."""


def page_in_a_frame(view: View, height: int | None = None) -> str:
    """Return a frame with the run's page in it: its script runs there, with no access to the notebook around it.

    Without ``height`` (pixels) it is as high as all lanes need, up to ``_HIGHEST``.
    """
    text, needed = page_and_height(view)
    high = min(needed, _HIGHEST) if height is None else max(_LOWEST, int(height))
    style = f"width:100%;height:{high}px;border:1px solid #80808080"
    return f'<iframe title="Timeline" sandbox="allow-scripts" style="{style}" srcdoc="{escape(text)}"></iframe>'


def download(view: View) -> str:
    """Return a link that downloads the trace, and where to open it."""
    packed = BytesIO()
    chrome.pack(view, packed)
    data = base64.b64encode(packed.getvalue()).decode("ascii")
    return (
        f'<a download="timeline.json.gz" href="data:application/gzip;base64,{data}">Download the trace</a>, '
        'then open it at <a href="https://ui.perfetto.dev" target="_blank" rel="noopener noreferrer">ui.perfetto.dev</a>.'
    )
