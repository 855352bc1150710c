"""Style sheet and script of the spot-check page: part of the page, so that one file is enough.

Colours and type are those of the report of a search.
"""

STYLE = """
:root {
  --page: #ffffff; --soft: #f4f6f8; --ink: #1a1f25; --muted: #59636e; --line: #dde2e7;
  --accent: #2460bd; --warn: #a3423c; --floor: #f1eee6; --wall: #8a919b; --bar: #3b7dd8;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --soft: #1d2125; --ink: #e6e9ec; --muted: #a0a9b2; --line: #31373d;
    --accent: #82b1ff; --warn: #f0938c; --floor: #262a2e; --wall: #737c86; --bar: #5b93e6;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 1240px; margin: 0 auto; padding: 28px 24px 64px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 21px; margin: 44px 0 4px; }
h3 { font-size: 15px; margin: 0; overflow-wrap: anywhere; }
p { margin: 6px 0; max-width: 74ch; }
.lead, .note { color: var(--muted); }
.note { font-size: 14px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); }
.tiles { gap: 12px; margin: 22px 0 0; }
.tile { background: var(--soft); border-radius: 8px; padding: 12px 16px; }
.tile b { display: block; font-size: 25px; line-height: 1.25; font-weight: 650; }
.tile span { color: var(--muted); font-size: 14px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; margin-top: 10px; }
th, td { padding: 6px 10px; text-align: left; border-bottom: 1px solid var(--line); }
th { color: var(--muted); font-weight: 600; }
td:first-child { overflow-wrap: break-word; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.bar { width: 46%; }
td.bar span {
  display: block; height: 12px; min-width: 2px; border-radius: 3px; background: var(--bar);
  print-color-adjust: exact; -webkit-print-color-adjust: exact;
}
.legend { display: grid; grid-template-columns: repeat(auto-fit, minmax(290px, 1fr)); gap: 10px 32px; }
.legend p { font-size: 14px; margin: 0; }
.scale { display: flex; align-items: center; gap: 8px; margin-top: 8px; }
.scale { font-size: 13px; color: var(--muted); }
.scale i { width: 150px; height: 10px; border-radius: 3px; print-color-adjust: exact; }
.keys { display: flex; flex-wrap: wrap; gap: 4px 16px; margin-top: 8px; font-size: 13px; }
.keys span { display: inline-flex; align-items: center; gap: 6px; }
.keys svg { width: 14px; height: 14px; }
.filters {
  position: sticky; top: 0; z-index: 2; display: flex; flex-wrap: wrap; gap: 6px; margin-top: 22px;
  padding: 10px 0; background: var(--page); border-bottom: 1px solid var(--line);
}
.filters[hidden], .event[hidden], section[hidden] { display: none; }
.filters button {
  font: inherit; font-size: 14px; color: inherit; background: var(--soft); border: 1px solid var(--line);
  border-radius: 999px; padding: 3px 12px; cursor: pointer;
}
.filters button:hover, .filters button:focus-visible { border-color: var(--accent); }
.filters button[aria-pressed=true] {
  background: var(--accent); border-color: var(--accent); color: var(--page);
}
.filters button span { opacity: .7; font-variant-numeric: tabular-nums; }
.events { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, var(--card)), 1fr)); }
.events { gap: 14px; margin-top: 14px; }
.event { display: flex; flex-direction: column; min-width: 0; }
.event { border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px 14px; }
.event header { display: flex; justify-content: space-between; gap: 10px; align-items: baseline; }
.badge { font-size: 12.5px; font-weight: 600; color: var(--muted); white-space: nowrap; }
.badge.removed { color: var(--warn); }
.facts { font-size: 13px; color: var(--muted); margin: 1px 0 0; font-variant-numeric: tabular-nums; }
.why { list-style: none; margin: 5px 0 0; padding: 0; }
.why { font-size: 13px; line-height: 1.4; overflow-wrap: anywhere; }
.why b { color: var(--warn); font-weight: 600; }
.view { display: grid; grid-template-columns: 1fr var(--map); gap: 12px; align-items: center; }
.view { margin-top: auto; padding-top: 10px; }
.view.sounds { grid-template-columns: 1fr; }
.sheet { position: relative; min-width: 0; }
.sheet img { display: block; width: 100%; height: auto; border-radius: 3px; print-color-adjust: exact; }
.numbers { position: absolute; inset: 0; display: grid; grid-template-columns: repeat(var(--tiles), 1fr); }
.numbers { grid-auto-rows: 1fr; counter-reset: microphone -1; pointer-events: none; }
.numbers i { font: 600 10px/1 system-ui, sans-serif; color: #fff; padding: 4px; }
.numbers i { text-shadow: 0 0 3px #000, 0 0 2px #000; }
.numbers i::before { counter-increment: microphone; content: counter(microphone); }
.map { display: block; width: 100%; max-height: 190px; overflow: visible; }
.map polyline { stroke: var(--muted); stroke-width: 1.2; fill: none; vector-effect: non-scaling-stroke; }
.map circle, .keys circle { stroke: #ffffff; stroke-width: 0.9; vector-effect: non-scaling-stroke; }
.map .beyond { fill: var(--page); stroke-width: 2; }
.floor { fill: var(--floor); stroke: var(--wall); stroke-width: 1.2; vector-effect: non-scaling-stroke; }
.floor { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.microphone { fill: var(--ink); }
.empty { color: var(--muted); font-size: 13px; text-align: center; margin: 0; }
footer { margin-top: 40px; color: var(--muted); font-size: 13px; }
@media (max-width: 760px) {
  main { padding: 20px 16px 48px; }
  h1 { font-size: 25px; }
  .tiles { grid-template-columns: 1fr 1fr; }
  .tile b { font-size: 21px; }
  th, td { padding: 6px 7px; }
  td:first-child { overflow-wrap: anywhere; min-width: 104px; }
  td.bar { width: 30%; }
  .number.extra { display: none; }
  .filters { flex-wrap: nowrap; overflow-x: auto; }
  .filters button { white-space: nowrap; }
}
@media (max-width: 460px) {
  .wide .view { grid-template-columns: 1fr; }
  .wide .map { max-height: 150px; }
}
@media print {
  body { font-size: 10.5pt; }
  main { max-width: none; padding: 0; }
  .filters { display: none !important; }
  .events { grid-template-columns: 1fr 1fr; gap: 8px; }
  .event { padding: 6px 8px; }
  .event, .tile, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""

SCRIPT = """
(() => {
  const bar = document.querySelector(".filters");
  const events = [...document.querySelectorAll(".event")];
  const sections = [...document.querySelectorAll("section.shown")];
  bar.hidden = false;
  bar.addEventListener("click", (click) => {
    const chosen = click.target.closest("button");
    if (!chosen) return;
    for (const button of bar.children) button.setAttribute("aria-pressed", button === chosen);
    const wanted = chosen.dataset.show;
    for (const event of events) event.hidden = !event.dataset.tags.split(" ").includes(wanted);
    for (const part of sections) part.hidden = !part.querySelector(".event:not([hidden])");
  });
})();
"""
