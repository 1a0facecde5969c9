"""SVG of matplotlib made fit for a page: its text stays text, its colours follow light and dark, no number longer than a pixel needs."""

import re
from io import StringIO
from typing import TYPE_CHECKING, Any

from markupsafe import escape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Each colour has its name in the page's style sheet, which knows light and dark; where there is none, the picture is light.
INK, MUTED, GRID, BAND = "#18212c", "#55606d", "#dfe5ec", "#eef3f8"
EVIDENCE, HALTING, LIMIT, RECENT = "#0b62c4", "#a1161b", "#946200", "#7c3aed"
VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    BAND: "band",
    EVIDENCE: "candidate",
    HALTING: "bad-ink",
    LIMIT: "ochre",
    RECENT: "violet",
}
RC: dict[Any, Any] = {"svg.fonttype": "none", "text.parse_math": False, "path.simplify": True, "axes.unicode_minus": True}
NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
POINTS_PER_INCH = 72
_DROPPED = re.compile(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", re.DOTALL)
_GROUP_ID = re.compile(r'<g id="[^"]*"')
_PATH = re.compile(r'(?<= d=")[^"]+')
_LONG_NUMBER = re.compile(r"(\.\d)\d+")
_FONT = re.compile(r"(?<=px )'DejaVu Sans'[^;\"]*|(?<=font-family: )'DejaVu Sans'[^;\"]*")


def inline_svg(figure: "Figure", *, name: str, title: str, text: str) -> str:
    """
    The figure as one `<svg>` element that reads itself out: `title` is its name, `text` says in words what it shows.

    Args:
        name: letters, digits and dashes; the ids inside begin with it, so that several pictures can stand on one page.
    """
    from matplotlib import rc_context

    buffer = StringIO()
    with rc_context({**RC, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawn = buffer.getvalue()
    body = _DROPPED.sub("", drawn[drawn.index(">", drawn.index("<svg")) + 1 :])
    body = _GROUP_ID.sub("<g", body)  # figure_1, patch_1, ...: the same in every picture, and nothing refers to them
    body = _FONT.sub("system-ui, sans-serif", _PATH.sub(lambda path: _LONG_NUMBER.sub(r"\1", path[0]), body))
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, f"var(--{variable}, {colour})")
    width, height = (float(inches) * POINTS_PER_INCH for inches in figure.get_size_inches())
    return (
        f'<svg {NAMESPACES} class="chart" width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}" stroke-linejoin="round" '
        f'role="img" aria-labelledby="{name}-title {name}-text"><title id="{name}-title">{escape(printable(title))}</title>'
        f'<desc id="{name}-text">{escape(printable(text))}</desc>{body.strip()}'
    )


def printable(text: str) -> str:
    """The text on one line, without control characters: no SVG may hold them."""
    return "".join(c if c.isprintable() else " " for c in text)


def side_by_side(pictures: list[str], *, columns: int, width: float, height: float, title: str) -> str:
    """One SVG file of equally large pictures on white, row by row."""
    rows = -(-len(pictures) // columns)
    places = [(i % columns * width, i // columns * height) for i in range(len(pictures))]
    placed = [picture.replace("<svg ", f'<svg x="{x:g}" y="{y:g}" ', 1) for picture, (x, y) in zip(pictures, places, strict=True)]
    size = f'width="{columns * width:g}" height="{rows * height:g}" viewBox="0 0 {columns * width:g} {rows * height:g}"'
    return f'<svg {NAMESPACES} {size}><title>{escape(title)}</title><rect width="100%" height="100%" fill="#fff"/>{"".join(placed)}</svg>\n'
