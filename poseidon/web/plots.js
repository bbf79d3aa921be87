// What the heartbeats of the device on the screen said over time, as plots.

import { agentPath, call } from "./api.js";
import { now } from "./clock.js";
import { attribute, byId, show, sync, el, text } from "./dom.js";
import { bytes, date, list, number, percent, plain } from "./format.js";
import { fleet } from "./store.js";

const SVG = "http://www.w3.org/2000/svg";
/** Size of a plot in its own units. */
const [WIDTH, HEIGHT] = [300, 60];
/** Points of a plot, and plots. */
const POINTS = 150;
const MOST = 200;
/** How often they are asked for, in milliseconds. */
const AGAIN = 60_000;

let agent = null;
let answer = null;
let timer = 0;
let turn = 0;

/** Wires the card up. */
export function setUp() {
  byId("plots-span").addEventListener("change", () => void load());
}

/** Takes the card to another device. */
export function open(next) {
  agent = next;
  answer = null;
  turn += 1;
  clearTimeout(timer);
  render();
  if (agent !== null) void load();
}

async function load() {
  clearTimeout(timer);
  const own = (turn += 1);
  const span = Number(byId("plots-span").value) || 86_400;
  try {
    if (!document.hidden && fleet.link === "connected") {
      const found = await call("GET", `${agentPath(agent)}/metrics?points=${POINTS}&since=${Math.floor(now() - span)}`);
      if (own !== turn) return;
      answer = found;
      render();
    }
  } catch {
    // The page says elsewhere that Poseidon is away.
  }
  if (own === turn && agent !== null) timer = setTimeout(() => void load(), AGAIN);
}

function render() {
  const found = answer === null ? [] : list(answer.metrics, MOST);
  show(byId("plots-card"), agent !== null && (found.length > 0 || answer === null));
  sync(byId("plots"), found, makePlot, (node, series) => {
    const [name, last, plot, range] = node.children;
    const points = pointsOf(series);
    const values = points.map(([, value]) => value);
    const [least, most] = [Math.min(...values), Math.max(...values)];
    text(name, plain(series.name, 100));
    attribute(name, "title", plain(series.name, 100));
    text(last, said(values.at(-1), series.unit));
    // A share is seen against the whole, anything else against what it was.
    // Beside a large constant value 1 is nothing.
    const [low, high] =
      series.unit === "share" ? [0, Math.max(1, most)] : [least, most > least ? most : least + Math.max(1, Math.abs(least))];
    draw(plot, points, low, high);
    text(range, `${said(least, series.unit)} – ${said(most, series.unit)}`);
  });
}

const pointsOf = (series) =>
  (Array.isArray(series.points) ? series.points.slice(0, 2000) : []).filter(
    (point) => Array.isArray(point) && number(point[0]) !== null && number(point[1]) !== null,
  );

function draw(svg, points, low, high) {
  const since = number(answer.since) ?? 0;
  const span = Math.max(1, (number(answer.until) ?? 0) - since);
  const step = number(answer.step) ?? 60;
  const x = (at) => ((at - since) / span) * WIDTH;
  const y = (value) => HEIGHT - 2 - ((value - low) / (high - low)) * (HEIGHT - 4);
  let path = "";
  let before = -Infinity;
  for (const [at, value] of points) {
    // A line over a time of which nothing is known would be a lie.
    const gap = at - before > 2.5 * step;
    path += gap ? `M${x(at).toFixed(1)} ${y(value).toFixed(1)}h.8` : `L${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    before = at;
  }
  attribute(svg.firstElementChild, "d", path);
  const ends = points.length ? `${date(points[0][0], "short")} to ${date(points.at(-1)[0], "short")}` : "nothing";
  attribute(svg, "aria-label", ends);
}

function said(value, unit) {
  if (value === undefined || !Number.isFinite(value)) return "–";
  if (unit === "share") return percent(value);
  if (unit === "B") return bytes(value);
  if (unit === "B/s") return `${bytes(value)}/s`;
  const digits = Math.abs(value) >= 1000 || Number.isInteger(value) ? 0 : 2;
  return `${value.toFixed(digits)} ${plain(unit, 20)}`.trim();
}

function makePlot() {
  const part = (name) => el("span", { class: name });
  const svg = document.createElementNS(SVG, "svg");
  for (const [name, value] of [["viewBox", `0 0 ${WIDTH} ${HEIGHT}`], ["preserveAspectRatio", "none"], ["role", "img"]]) {
    svg.setAttribute(name, value);
  }
  svg.append(document.createElementNS(SVG, "path"));
  return el("div", { class: "plot" }, part("label"), part("last"), svg, part("sub"));
}
