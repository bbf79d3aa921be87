// The panel that asks several devices at once: which, by selector or by ticking, and what.

import { agentName, call } from "./api.js";
import { attribute, byId, say, show, text } from "./dom.js";
import { counted, plain } from "./format.js";
import { fleet, keyOf } from "./store.js";

/** After a key was pressed the count waits for the next one so long, and is asked for again at most this often. */
const TYPING = 250;
const AGAIN = 3000;

const table = byId("agents");
/** Keys of the rows that are ticked, on the screen or filtered out. */
const ticked = new Set();
/** What the selector means, by key; `null` while it says nothing. */
let selected = new Map();
let timer = 0;
let asked = 0;
let opened = false;

/** Wires the panel up. */
export function setUp() {
  byId("many-open").addEventListener("click", () => open(!opened));
  table.addEventListener("change", ({ target }) => {
    if (!target.matches("input.pick")) return;
    if (target.checked) ticked.add(target.value);
    else ticked.delete(target.value);
    count();
  });
  byId("many-on").addEventListener("input", () => look(TYPING));
  byId("many-none").addEventListener("click", () => {
    ticked.clear();
    for (const box of table.querySelectorAll("input.pick:checked")) box.checked = false;
    count();
  });
  byId("many-form").addEventListener("submit", (event) => {
    event.preventDefault();
    void start();
  });
  fleet.addEventListener("agents", ({ detail }) => {
    if (!opened) return;
    if (detail.replaced) {
      for (const key of ticked) if (!fleet.agents.has(key)) ticked.delete(key);
    }
    count();
    look(AGAIN);
  });
}

function open(value) {
  opened = value;
  show(byId("many"), opened);
  attribute(byId("many-open"), "aria-expanded", String(opened));
  table.classList.toggle("picking", opened);
  if (!opened) return;
  look(0);
  count();
  byId("many-on").focus();
}

const selector = () => byId("many-on").value.trim();

// Poseidon says what a selector means: nobody else has to know how to read one.
function look(wait) {
  if (timer && wait === AGAIN) return;
  clearTimeout(timer);
  timer = setTimeout(async () => {
    timer = 0;
    asked += 1;
    const mine = asked;
    const on = selector();
    let found = new Map();
    let wrong = "";
    if (on !== "") {
      try {
        const { agents } = await call("GET", `/agents?on=${encodeURIComponent(on)}&brief=true`);
        found = new Map(agents.map((agent) => [keyOf(agent), agent.state === "up"]));
      } catch (failure) {
        wrong = plain(failure.message);
      }
    }
    if (mine !== asked) return;
    selected = found;
    say(byId("many-wrong"), wrong);
    count();
  }, wait);
}

function count() {
  const all = new Map(selected);
  for (const key of ticked) {
    const agent = fleet.agents.get(key);
    if (agent !== undefined) all.set(key, agent.state === "up");
  }
  const down = [...all.values()].filter((up) => !up).length;
  const words = all.size === 0 ? "No device is selected" : `${counted(all.size, "device")} selected`;
  text(byId("many-count"), down > 0 ? `${words}, ${down} of them down` : words);
  show(byId("many-none"), ticked.size > 0);
  byId("many-start").disabled = all.size === 0;
}

async function start() {
  const line = byId("many-command").value.trim();
  if (line === "") return;
  const body = { on: selector() === "" ? [] : [selector()], agents: [] };
  for (const key of ticked) {
    const agent = fleet.agents.get(key);
    if (agent !== undefined) body.agents.push(agentName(agent));
  }
  if (byId("many-kind").value === "script") {
    const [name, ...args] = line.split(/\s+/);
    Object.assign(body, { type: "script", payload: { name, args } });
  } else {
    body.command = { shell: line };
  }
  for (const [field, id] of [["concurrency", "many-concurrency"], ["canary", "many-canary"], ["stopOnFailures", "many-stop"]]) {
    const value = byId(id).valueAsNumber;
    if (Number.isFinite(value)) body[field] = value;
  }
  if (byId("many-queue").checked) body.queue = true;
  say(byId("many-error"), "");
  byId("many-start").disabled = true;
  try {
    const { batch } = await call("POST", "/batches", body);
    location.hash = `#/batches/${encodeURIComponent(batch.id)}`;
  } catch (failure) {
    say(byId("many-error"), `Not started: ${plain(failure.message)}`);
  } finally {
    count();
  }
}
