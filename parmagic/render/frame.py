"""What a notebook shows of a run that is a page or a file of its own: within the output, with no server behind it."""

from __future__ import annotations

import base64
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

from parmagic.render import chrome
from parmagic.render.page import page

if TYPE_CHECKING:
    from parmagic.render import View

_LOWEST = 120


def page_in_a_frame(view: View, height: int) -> str:
    """Return a frame with the run's page in it: its script runs there, with no access to the notebook around it."""
    style = f"width:100%;height:{max(_LOWEST, int(height))}px;border:1px solid #80808080"
    return f'<iframe title="Timeline" sandbox="allow-scripts" style="{style}" srcdoc="{escape(page(view))}"></iframe>'


def download(view: View) -> str:
    """Return a link that downloads the trace, and where to open it."""
    packed = BytesIO()
    chrome.pack(view, packed)
    data = base64.b64encode(packed.getvalue()).decode("ascii")
    return (
        f'<a download="timeline.json.gz" href="data:application/gzip;base64,{data}">Download the trace</a>, '
        'then open it at <a href="https://ui.perfetto.dev" target="_blank" rel="noopener noreferrer">ui.perfetto.dev</a>.'
    )
