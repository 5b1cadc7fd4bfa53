"""The attribution file that travels with the shards: who drew what, and under which licence."""

from collections.abc import Mapping

from upop_ray.data.emoji.sources import ANNOTATIONS, STYLES, Source

_LICENCE_LINKS = {
    "MIT": "https://spdx.org/licenses/MIT.html",
    "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
}

_HEAD = """# Attribution of the built-in emoji data

The shards in this folder hold renderings of emoji drawn by several artists, joined with labels and keywords. Each row
names its style and licence (columns `style` and `licence`). No flag, no share-alike style is included.

Changes made to the originals: drawn at 64x64 pixels on white, reduced to a palette of at most 64 colours. Labels and
keywords were put in lower case.

## Drawings
| style | images | package | licence | copyright | project |
|---|---|---|---|---|---|
"""

_TAIL = """
## Labels, keywords, shortcodes and groups
{package} {version}, {licence}, {copyright}; {home}

## Licences
{links}

The MIT licence, under which the parts marked so are used:

> Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
> documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
> rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
> persons to whom the Software is furnished to do so, subject to the following conditions:
>
> The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
> Software.
>
> THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
> WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
> COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
> OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

The Unicode License V3 of the CLDR data is at https://www.unicode.org/license.txt.
"""


def attribution(images: Mapping[str, int]) -> str:
    """Return the text of ATTRIBUTION.md.

    :param images: number of images of each style
    """
    lines = [_line(style.name, images[style.name], style.source) for style in STYLES]
    links = "\n".join(f"* {name}: {link}" for name, link in _LICENCE_LINKS.items())
    facts = {key: getattr(ANNOTATIONS, key) for key in ("package", "version", "licence", "copyright", "home")}
    return _HEAD + "".join(lines) + _TAIL.format(links=links, **facts)


def _line(style: str, images: int, source: Source) -> str:
    cells = (style, images, f"{source.package} {source.version}", source.licence, source.copyright, source.home)
    return f"| {' | '.join(map(str, cells))} |\n"
