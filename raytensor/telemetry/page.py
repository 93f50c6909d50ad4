"""The frame of every report: one HTML page that needs nothing else, neither network nor script.

In: titles, facts, plots and tables, all of them text of other people until they are escaped here. Out: the page, light
or dark as the reader's system is, readable from a phone to a wide screen. Knows nothing of runs.
"""

import html
from collections.abc import Collection, Iterable, Mapping, Sequence

# Nothing on the page may load or run, whatever the names and texts in it are.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Html(str):
    """Text that is HTML already; any other string is escaped."""


def page(title: str, sentence: str, parts: Iterable[str], footer: str = "") -> str:
    """The whole page. parts: HTML in order; empty ones are left out."""
    name = html.escape(title)
    body = [f"<header><h1>{name}</h1><p>{html.escape(sentence)}</p></header>", *parts]
    body.append(f"<footer>{html.escape(footer)}</footer>" if footer else "")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{name} · RayTensor</title>\n<style>\n{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of (label, value)."""
    return f"<dl>{''.join(f'<div><dt>{_cell(label)}</dt><dd>{_cell(value)}</dd></div>' for label, value in pairs)}</dl>"


def plots(drawn: Mapping[str, str]) -> str:
    """{title: SVG} side by side; "" for none."""
    figures = [f"<figure><figcaption>{_cell(title)}</figcaption>\n{svg}\n</figure>" for title, svg in drawn.items()]
    return '<section class="plots">\n' + "\n".join(figures) + "\n</section>" if figures else ""


def bullets(title: str, lines: Sequence[str]) -> str:
    """A section with a list; "" for no lines."""
    items = "".join(f"<li>{_cell(line)}</li>" for line in lines)
    return f"<section><h2>{_cell(title)}</h2><ul>{items}</ul></section>" if lines else ""


def table(
    title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], *, words: Collection[str] = (), note: str = ""
) -> str:
    """A section with a table that scrolls sideways where it is wider than the page.

    words  columns (of `heads`) that are aligned left.
    """
    marks = [' class="word"' if head in words else "" for head in heads]

    def line(tag: str, cells: Sequence[str]) -> str:
        marked = zip(marks, cells, strict=True)
        return "<tr>" + "".join(f"<{tag}{mark}>{_cell(cell)}</{tag}>" for mark, cell in marked) + "</tr>"

    hint = '<p class="wide">Scroll the table sideways for more columns &rarr;</p>'
    below = f'<p class="note">{_cell(note)}</p>' if note else ""
    top = f'<section><h2>{_cell(title)}</h2>{hint}<div class="scroll"><table>'
    return (
        f"{top}<thead>{line('th', heads)}</thead>\n<tbody>\n"
        + "\n".join(line("td", row) for row in rows)
        + f"\n</tbody></table></div>{below}</section>"
    )


def configuration(text: str) -> str:
    """The configuration, folded away; "" for none."""
    return f"<details><summary>Configuration</summary><pre>{_cell(text)}</pre></details>" if text else ""


def _cell(text: str) -> str:
    return text if isinstance(text, Html) else html.escape(text)


CSS = """\
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --ink: #1b1f24; --muted: #68707a; --grid: #e3e6ea;
  --shade: #0003; --good: #0b7a4b; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --page: #111418; --card: #1a1f25; --ink: #e4e8ec; --muted: #98a1ab;
  --grid: #303740; --shade: #fff4; --good: #4cc38a; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 1rem; }
h1 { margin: 0; font-size: 1.7rem; overflow-wrap: anywhere; } h2 { margin: 1.5rem 0 .5rem; font-size: 1.15rem; }
header p { margin: .2rem 0 1rem; color: var(--muted); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); gap: .6rem;
  margin: 0 0 1rem; }
dl div, figure, details { background: var(--card); border: 1px solid var(--grid); border-radius: .5rem;
  padding: .6rem .8rem; }
dt { color: var(--muted); font-size: .85rem; } dd { margin: 0; overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: .8rem; }
figure { margin: 0; min-width: 0; } figcaption { font-weight: 600; margin-bottom: .3rem; }
figure svg { display: block; width: 100%; height: auto; }
.scroll { overflow-x: auto; border: 1px solid var(--grid); border-radius: .5rem; background:
  linear-gradient(to right, var(--card) 30%, transparent) left / 3rem 100% no-repeat local,
  linear-gradient(to left, var(--card) 30%, transparent) right / 3rem 100% no-repeat local,
  linear-gradient(to right, var(--shade), transparent) left / 1rem 100% no-repeat scroll,
  linear-gradient(to left, var(--shade), transparent) right / 1rem 100% no-repeat scroll, var(--card); }
.wide, .note { margin: .3rem 0; color: var(--muted); font-size: .85rem; }
.wide { display: none; } @media (max-width: 72rem) { .wide { display: block; } }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--grid); }
th { color: var(--muted); font-weight: 600; }
tbody tr:last-child td { border-bottom: 0; }
:is(th, td).word { text-align: left; }
td code { display: inline-block; max-width: 7rem; overflow: hidden; text-overflow: ellipsis; vertical-align: bottom;
  user-select: all; }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; }
details { margin-top: 1.5rem; } summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; font-size: .85rem; }
footer { margin: 1.5rem 0; color: var(--muted); font-size: .85rem; }
"""
