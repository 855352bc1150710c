"""Style sheet and script of pages: part of the page, so that one file is enough, without a network."""

STYLE = """
:root {
  --page: #ffffff; --soft: #f4f6f8; --ink: #1a1f25; --muted: #59636e; --line: #dde2e7;
  --grid: #e3e7eb; --accent: #2460bd; --warn: #a3423c;
}
@media screen and (prefers-color-scheme: dark) {
  :root:not(.paper) {
    --page: #14171a; --soft: #1d2125; --ink: #e6e9ec; --muted: #a0a9b2; --line: #31373d;
    --grid: #2b3036; --accent: #82b1ff; --warn: #f0938c;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 1160px; margin: 0 auto; padding: 28px 24px 64px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 21px; margin: 52px 0 4px; }
h3 { font-size: 16px; margin: 0 0 4px; }
section > * + h3, table + h3, .figures + h3 { margin-top: 28px; }
section > h2 + h3 { margin-top: 12px; }
.figures + .scroll { margin-top: 20px; }
p { margin: 6px 0; max-width: 74ch; }
ul { margin: 8px 0; padding-left: 22px; max-width: 100ch; }
li { margin: 2px 0; overflow-wrap: anywhere; }
a { color: var(--accent); }
.lead, figcaption, .note { color: var(--muted); }
figcaption, .note { font-size: 14px; max-width: 74ch; }
nav { margin-top: 12px; font-size: 14px; }
nav a { margin-right: 16px; white-space: nowrap; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); }
.tiles { gap: 12px; margin: 22px 0 0; }
.tile { background: var(--soft); border-radius: 8px; padding: 12px 16px; }
.tile b { display: block; font-size: 25px; line-height: 1.25; font-weight: 650; }
.tile span { color: var(--muted); font-size: 14px; }
.card { border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px; margin: 14px 0; }
.columns { display: grid; grid-template-columns: 1fr 1fr; gap: 32px; }
.columns > * { min-width: 0; }
figure { margin: 18px 0 0; min-width: 0; }
.plot { width: 100%; }
.scroll { overflow-x: auto; }
.tall { max-height: 640px; overflow: auto; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { padding: 6px 10px; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--muted); font-weight: 600; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
td.ends { white-space: pre; color: var(--muted); }
td.ends::first-line { color: var(--ink); }
td.name { overflow-wrap: anywhere; min-width: 120px; }
td.date { white-space: nowrap; }
td.meaning { min-width: 170px; }
.pairs th { overflow-wrap: break-word; }
.pairs th { width: 45%; }
.axis .domain, .axis .tick line { stroke: var(--muted) !important; }
.axis .tick text { text-shadow: 0 0 4px var(--page), 0 0 4px var(--page) !important; }
td.reason { min-width: 560px; }
.short td.reason { min-width: 240px; }
.tall.short { max-height: 360px; }
.notice { border-left: 3px solid var(--accent); padding: 2px 0 2px 12px; margin-top: 14px; }
.choice { display: flex; align-items: center; gap: 4px; margin: 6px 0 2px; }
.choice { font-size: 13px; color: var(--muted); }
.choice button {
  font: inherit; color: var(--ink); background: var(--soft); border: 1px solid var(--line);
  border-radius: 6px; padding: 2px 10px; cursor: pointer;
}
.choice button[aria-pressed=true] { background: var(--accent); color: var(--page); }
.keys { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 4px 0; }
.keys { font-size: 13px; color: var(--muted); }
.keys span { display: inline-flex; align-items: center; gap: 6px; }
.keys svg { width: 18px; height: 18px; flex: none; }
.slices { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 4px 20px; }
.slices h3 { font-size: 13.5px; font-weight: 600; overflow-wrap: anywhere; }
.gradient { display: flex; align-items: center; gap: 8px; color: var(--muted); font-size: 13px; }
.gradient i { width: 120px; height: 9px; border-radius: 5px; print-color-adjust: exact; }
.tall th { position: sticky; top: 0; background: var(--page); z-index: 1; }
.tall td { white-space: nowrap; }
.tall td.reason { white-space: normal; }
th button {
  font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer;
  text-align: inherit; white-space: nowrap;
}
th button:hover, th button:focus-visible { color: var(--accent); }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
tr.best td { background: var(--soft); font-weight: 600; }
td.failed { color: var(--warn); }
code, pre { font: 13.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
code { overflow-wrap: anywhere; }
pre { background: var(--soft); border-radius: 8px; padding: 12px 14px; margin: 6px 0 14px; overflow-x: auto; }
@media (max-width: 760px) {
  th, td { padding: 6px 7px; }
  main { padding: 20px 16px 48px; }
  h1 { font-size: 25px; }
  .columns { grid-template-columns: 1fr; gap: 16px; }
  .tiles { grid-template-columns: 1fr 1fr; }
  .tile b { font-size: 21px; }
}
@media print {
  body { font-size: 11pt; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  .columns.figures { grid-template-columns: 1fr; }
  .tall, .tall.short { max-height: none; overflow: visible; border: 0; }
  .tall table { font-size: 8.5pt; }
  .tall th { position: static; }
  .tall th, .tall td { padding: 2px 5px; white-space: normal; }
  .setting, .modebar, .screen, .choice { display: none; }
  .tall td.number { white-space: nowrap; }
  .scroll { overflow: visible; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  figure, .card, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
}
"""

SCRIPT = """
(() => {
  const specs = [...document.querySelectorAll("script[data-figure]")].map((node) => ({
    place: document.getElementById(node.dataset.figure), text: node.textContent,
  }));
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const themed = (layout, width) => {
    layout.font.color = colour("--ink");
    layout.hoverlabel = { ...layout.hoverlabel, bgcolor: colour("--page"), bordercolor: colour("--line"),
      font: { color: colour("--ink") } };
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis\\d*$/.test(key)) layout[key].gridcolor = colour("--grid");
    }
    if (matchMedia("(pointer: coarse)").matches) layout.dragmode = false;
    if (width < 480) {
      layout.margin = { ...layout.margin, r: Math.min(layout.margin.r, 10) };
      layout.font.size = 12;
    }
    return layout;
  };
  const placeBy = (spec, { title, x, y }, first) => {
    spec.data.forEach((trace, i) => { trace.x = x[i]; trace.y = y[i]; });
    spec.layout.xaxis.title.text = title;
    if (!first) delete spec.layout.xaxis.dtick;
  };
  const plot = ({ place, text }) => {
    const spec = JSON.parse(text);
    const chosen = Number(place.dataset.choice ?? 0);
    const choices = spec.layout.meta?.choices;
    if (choices) placeBy(spec, choices[chosen], chosen === 0);
    const layout = themed(spec.layout, place.clientWidth);
    Plotly.newPlot(place, spec.data, layout, { responsive: true, displaylogo: false,
      displayModeBar: !place.closest(".slices"),
      modeBarButtonsToRemove: ["select2d", "lasso2d"], toImageButtonOptions: { format: "svg" } });
  };
  const offer = (item) => {
    const choices = JSON.parse(item.text).layout.meta?.choices ?? [];
    if (choices.length < 2) return;
    const bar = document.createElement("div");
    bar.className = "choice";
    bar.append("by ");
    const buttons = choices.map(({ label }, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      button.setAttribute("aria-pressed", i === 0);
      button.addEventListener("click", () => {
        item.place.dataset.choice = i;
        buttons.forEach((other) => other.setAttribute("aria-pressed", other === button));
        plot(item);
      });
      return button;
    });
    bar.append(...buttons);
    item.place.parentElement.before(bar);
  };
  const draw = () => specs.forEach(plot);
  if (window.Plotly) {
    specs.forEach(offer);
    draw();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
    const paper = (on) => { document.documentElement.classList.toggle("paper", on); draw(); };
    window.addEventListener("beforeprint", () => paper(true));
    window.addEventListener("afterprint", () => paper(false));
  }
  const valueOf = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const difference = Number(a) - Number(b);
    return Number.isNaN(difference) ? a.localeCompare(b) : difference;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    table.tHead.addEventListener("click", (event) => {
      const heading = event.target.closest("th");
      if (!heading || !event.target.closest("button")) return;
      const ascending = heading.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const body = table.tBodies[0];
      const keyed = [...body.rows].map((row) => [valueOf(row, heading.cellIndex), row]);
      keyed.sort(([a], [b]) => (a === "" || b === "" || ascending ? compare(a, b) : compare(b, a)));
      body.append(...keyed.map(([, row]) => row));
    });
  }
})();
"""
