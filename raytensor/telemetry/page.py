"""The look of report.html: light or dark as the reader's system is, readable from a phone to a wide screen."""

CSS = """\
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --ink: #1b1f24; --muted: #68707a; --grid: #e3e6ea;
  --good: #0b7a4b; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --page: #111418; --card: #1a1f25; --ink: #e4e8ec; --muted: #98a1ab;
  --grid: #303740; --good: #4cc38a; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 1rem; }
h1 { margin: 0; font-size: 1.7rem; overflow-wrap: anywhere; }
h2 { margin: 1.5rem 0 .5rem; font-size: 1.15rem; }
header p { margin: .2rem 0 1rem; color: var(--muted); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); gap: .6rem; margin: 0 0 1rem; }
dl div, figure, details { background: var(--card); border: 1px solid var(--grid); border-radius: .5rem; padding: .6rem .8rem; }
dt { color: var(--muted); font-size: .85rem; }
dd { margin: 0; overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: .8rem; }
figure { margin: 0; min-width: 0; }
figcaption { font-weight: 600; margin-bottom: .3rem; }
figure svg { display: block; width: 100%; height: auto; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--grid); border-radius: .5rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--grid); }
th { color: var(--muted); font-weight: 600; }
tbody tr:last-child td { border-bottom: 0; }
:is(th, td):is(:nth-child(2), :nth-child(3), :nth-child(4), :nth-child(5), .word) { text-align: left; }
td code { display: inline-block; max-width: 9rem; overflow: hidden; text-overflow: ellipsis; vertical-align: bottom; }
.good { color: var(--good); }
.bad { color: var(--bad); font-weight: 600; }
details { margin-top: 1.5rem; }
summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; font-size: .85rem; }
footer { margin: 1.5rem 0; color: var(--muted); font-size: .85rem; }
"""
