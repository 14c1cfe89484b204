"""How a page looks: light or dark as its reader's system is, on a phone, on paper; and its one small script."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1d2127; --soft: #5b6470; --line: #d9dde3; --card: #f6f7f9;
  --c0: #33669a; --c1: #c4582f; --wash: 51 102 154; --wrong: 190 70 60; --tile: #eef3f8; --on: #fff; }
@media screen and (prefers-color-scheme: dark) {
  :root { --paper: #14171b; --ink: #e6e9ed; --soft: #a0a9b4; --line: #333a43; --card: #1b2026; --c0: #7fb1e3;
    --c1: #f0976f; --wash: 98 154 214; --wrong: 226 110 98; --tile: #1d2731;
    --on: #0c1116; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
  overflow-wrap: break-word; }
main, header, nav, footer { max-width: 1120px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 26px; }
h1 { font-size: 1.15rem; font-weight: 600; color: var(--soft); margin: 0 0 6px; }
h2 { font-size: 1.2rem; margin: 34px 0 10px; padding-top: 10px; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 18px 0 6px; }
p { margin: 6px 0; max-width: 75ch; text-wrap: pretty; }
a { color: var(--c0); }
.verdict { font-size: 1.45rem; line-height: 1.35; font-weight: 600; margin: 0 0 8px; text-wrap: balance; }
.soft, figcaption, .note { color: var(--soft); font-size: .88rem; }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; margin-top: 16px; font-size: .9rem; }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; margin: 16px 0 0; padding: 0; list-style: none; }
.tiles li { background: var(--tile); border-radius: 8px; padding: 8px 14px; min-width: 104px; }
.tiles b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--soft); font-size: .82rem; display: block; }
.row { display: flex; flex-wrap: wrap; gap: 20px; align-items: flex-start; }
.row > * { flex: 1 1 300px; min-width: 0; }
figure { margin: 0; }
.chart { max-width: 440px; }
svg { display: block; width: 100%; height: auto; }
svg .axis { fill: var(--soft); font: 11px system-ui, sans-serif; }
svg .grid { stroke: var(--line); }
svg .ideal { stroke: var(--soft); stroke-dasharray: 4 3; }
svg .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg polyline.c0 { stroke: var(--c0); } svg polyline.c1 { stroke: var(--c1); }
svg circle.c0, svg rect.c0 { fill: var(--c0); } svg circle.c1 { fill: var(--c1); }
.key { display: flex; gap: 16px; padding-left: 46px; }
.key i { display: inline-block; width: 18px; height: 3px; margin-right: 6px; vertical-align: middle; }
.key i.c0 { background: var(--c0); } .key i.c1 { background: var(--c1); }
.scroll { overflow-x: auto; max-width: 100%; }
.scroll + .scroll { margin-top: 12px; }
table { border-collapse: collapse; font-size: .88rem; line-height: 21px; }
th, td { text-align: left; padding: 4px 10px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td:not(.n) { max-width: 26em; }
thead th { color: var(--soft); font-weight: 600; white-space: nowrap; vertical-align: bottom; }
td.n, th.n { text-align: right; padding-left: 10px; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.bar { background: linear-gradient(to right, rgb(var(--wash) / .28) var(--w), transparent var(--w)); min-width: 74px;
  background-clip: content-box; }
th button { all: unset; cursor: pointer; } th button:focus-visible { outline: 2px solid var(--c0); }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
.tall { max-height: 560px; overflow: auto; } .tall .scroll { overflow: visible; }
.tall thead th { position: sticky; top: 0; background: var(--paper); z-index: 1; }
table.sortable { border-collapse: separate; border-spacing: 0; }  /* collapsed borders do not move with a sticky cell */
table.sortable tr > :first-child { position: sticky; left: 0; background: var(--paper); }
.tall table.sortable thead th:first-child { z-index: 2; }
table.confusion { font-size: .78rem; }
table.confusion th, table.confusion td { border: 1px solid var(--line); padding: 2px 5px; }
table.confusion tbody th { font-weight: 400; white-space: nowrap; max-width: 14em; overflow: hidden;
  text-overflow: ellipsis; position: sticky; left: 0; background: var(--paper); }
table.confusion td { text-align: center; min-width: 26px; font-variant-numeric: tabular-nums; }
table.confusion td.d { background: rgb(var(--wash) / var(--s)); }
table.confusion td.full { color: var(--on); }
table.confusion td.e { background: rgb(var(--wrong) / var(--s)); }
th.turned span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 12em; overflow: hidden;
  font-weight: 400; }
th.corner { font-weight: 400; font-size: .75rem; }
img.pattern { width: 100%; max-width: 520px; height: auto; aspect-ratio: 1; border: 1px solid var(--line);
  image-rendering: pixelated; }
@media screen and (prefers-color-scheme: dark) { img.pattern { filter: brightness(1.7); } }
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 14px; }
.clip { background: var(--card); border-radius: 8px; overflow: hidden; break-inside: avoid; }
.clip img { display: block; width: 100%; height: 150px; object-fit: contain; background: var(--tile); }
.clip .none { color: var(--soft); padding: 10px 10px 0; font-size: .85rem; }
.clip figcaption { padding: 8px 10px 10px; overflow-wrap: anywhere; }
.clip b { color: var(--ink); }
.clip small { display: block; }
.timeline { margin: 0 0 22px; } .timeline h3 { overflow-wrap: anywhere; }
div.lanes { display: grid; grid-template-columns: minmax(72px, max-content) 1fr; gap: 3px 10px; align-items: center; }
.lane { font-size: .82rem; max-width: 12em; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.track { position: relative; height: 26px; background: var(--card); border-radius: 3px; overflow: hidden; }
.track i { position: absolute; height: 11px; min-width: 2px; border-radius: 2px; }
.track i.true { top: 1px; } .track i.found { bottom: 1px; }
i.true { background: var(--soft); } i.missed { background: none; box-shadow: inset 0 0 0 2px var(--c1); }
i.found { background: var(--c0); } i.wrong { background: var(--c1); }
.ticks { position: relative; height: 1.3em; color: var(--soft); font-size: .75rem; }
.ticks span { position: absolute; transform: translateX(-50%); } .ticks span:first-child { transform: none; }
.key.lanes { flex-wrap: wrap; padding: 0; font-size: .85rem; color: var(--soft); }
.key.lanes i { height: 10px; border-radius: 2px; }
pre, code { font: .85rem/1.5 ui-monospace, monospace; }
pre { background: var(--card); border-radius: 8px; padding: 10px 14px; white-space: pre-wrap; margin: 6px 0; }
details { margin: 8px 0; } summary { cursor: pointer; color: var(--c0); }
footer { margin: 36px auto; color: var(--soft); font-size: .85rem; }
@media (max-width: 560px) { main, header, nav, footer { padding-left: 14px; padding-right: 14px; }
  .verdict { font-size: 1.2rem; } .clips { grid-template-columns: repeat(auto-fill, minmax(145px, 1fr)); gap: 10px; }
  .lane { max-width: 84px; } .clip img { height: 118px; } .tiles li { min-width: 86px; padding: 6px 10px; }
  table { font-size: .8rem; line-height: 20px; } th, td { padding-right: 3px; } td.n, th.n { padding-left: 4px; }
  thead th, thead th.n { white-space: normal; }
  td.bar { min-width: 0; } .options thead { display: none; } .options tr, .options td { display: block; }
  .options td { border: 0; padding: 1px 0; } .options tr { border-bottom: 1px solid var(--line); padding: 5px 0; }
  td:not(.n) { max-width: 40vw; } .options td { max-width: none !important; }
  .options td:nth-child(2)::before { content: "this run: "; color: var(--soft); }
  .options td:nth-child(3):not(:empty)::before { content: "default: "; color: var(--soft); } }
@media print { nav { display: none; } .tall, .scroll { max-height: none; overflow: visible; }
  h2 { break-after: avoid; } tr { break-inside: avoid; }
  * { print-color-adjust: exact; } details::details-content { content-visibility: visible; height: auto; } }
"""

SCRIPT: Final = """
document.querySelectorAll('table.sortable').forEach(function (table) {
  var body = table.tBodies[0];
  function value(row, n) { var v = row.cells[n].dataset.v; return v === undefined ? null : parseFloat(v); }
  table.querySelectorAll('thead th').forEach(function (head, n) {
    var button = document.createElement('button');
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener('click', function () {
      var up = head.getAttribute('aria-sort') === 'ascending' ? -1 : 1;
      table.querySelectorAll('th').forEach(function (other) { other.removeAttribute('aria-sort'); });
      head.setAttribute('aria-sort', up === 1 ? 'ascending' : 'descending');
      var numbers = Array.prototype.some.call(body.rows, function (row) { return value(row, n) !== null; });
      Array.from(body.rows).sort(function (a, b) {
        if (!numbers) return up * a.cells[n].textContent.localeCompare(b.cells[n].textContent);
        var x = value(a, n), y = value(b, n);
        return x === null || y === null ? (x === null) - (y === null) : up * (x - y);
      }).forEach(function (row) { body.appendChild(row); });
    });
  });
});
"""
"""Makes tables sortable by a click on a column's title; the page lacks nothing without it."""

POLICY: Final = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; script-src "
    f"'sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}'"
)
"""What the page may do: show its own images and run SCRIPT, nothing else, whatever a class is called."""
