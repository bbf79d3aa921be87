// The fleet as Poseidon tells it: one stream of events, kept open, and what it says.

import { ApiError, call, pause, stream } from "./api.js";
import { atLeast } from "./clock.js";
import { object, plain } from "./format.js";

// Without a byte for this long, Poseidon is asked whether it lives.
const SILENCE = 40_000;
const SLOWEST = 15_000;

/** Key of an agent, as it stands in the address of its page. */
export const keyOf = (agent) =>
  `${encodeURIComponent(plain(agent.name, 500))}/${encodeURIComponent(plain(agent.instance, 500))}`;

/** Says `agents`, `pending`, `job`, `scripts`, `schedule`, `batch` and `link` when these change; agents at most once a frame. */
class Fleet extends EventTarget {
  agents = new Map();
  pending = [];
  /** `connecting`, `connected`, `lost` or `refused`. */
  link = "connecting";
  /** When the next try is due, by performance.now(). */
  retryAt = 0;
  #changed = new Set();
  #replaced = false;
  #asked = false;
  #abort = null;

  /** Connects, and stays so until `stop`. */
  async start() {
    this.stop();
    const abort = new AbortController();
    this.#abort = abort;
    let wait = 500;
    this.#say("connecting");
    while (!abort.signal.aborted) {
      const began = performance.now();
      let failure = null;
      try {
        await this.#follow(abort.signal);
      } catch (error) {
        failure = error;
      }
      if (abort.signal.aborted) return;
      if (failure instanceof ApiError && failure.status === 401) {
        this.#say("refused");
        return;
      }
      if (failure !== null && !(failure instanceof ApiError)) console.warn("events:", failure);
      wait = performance.now() - began > 10_000 ? 500 : Math.min(SLOWEST, wait * 1.8);
      const delay = wait * (0.7 + Math.random() * 0.6);
      this.retryAt = performance.now() + delay;
      this.#say("lost");
      try {
        await pause(delay, abort.signal);
      } catch {
        return;
      }
    }
  }

  /** Ends the stream and forgets the fleet. */
  stop() {
    this.#abort?.abort();
    this.#abort = null;
    this.agents.clear();
    this.pending = [];
    this.#replaced = true;
    this.#ask();
  }

  async #follow(outer) {
    const own = new AbortController();
    const end = () => own.abort();
    outer.addEventListener("abort", end);
    let heard = performance.now();
    const watch = setInterval(async () => {
      if (performance.now() - heard < SILENCE) return;
      heard = performance.now();
      try {
        const answer = await fetch("/healthz", { cache: "no-store", signal: AbortSignal.timeout(8000) });
        if (!answer.ok) own.abort();
      } catch {
        own.abort();
      }
    }, 5000);
    try {
      await stream("/events", {
        signal: own.signal,
        alive: () => {
          heard = performance.now();
        },
        take: (event) => this.#take(event),
      });
    } finally {
      clearInterval(watch);
      outer.removeEventListener("abort", end);
    }
  }

  #take(event) {
    switch (event.type) {
      case "fleet":
        this.agents.clear();
        for (const agent of event.agents) this.#put(agent);
        this.#replaced = true;
        this.#setPending(event.pending);
        this.#say("connected");
        break;
      case "agent":
        this.#put(event.agent);
        break;
      case "agent-removed":
        this.agents.delete(keyOf(event));
        this.#replaced = true;
        break;
      case "pending":
        this.#setPending(event.pending);
        break;
      case "job":
        this.dispatchEvent(new CustomEvent("job", { detail: event.job }));
        break;
      case "scripts":
        this.dispatchEvent(new CustomEvent("scripts", { detail: event }));
        break;
      case "schedule":
        this.dispatchEvent(new CustomEvent("schedule", { detail: event }));
        break;
      case "batch":
        this.dispatchEvent(new CustomEvent("batch", { detail: event.batch }));
        break;
      default: // Of a newer Poseidon.
    }
    this.#ask();
  }

  #put(agent) {
    const key = keyOf(agent);
    agent.hello = object(agent.hello);
    agent.health = object(agent.health);
    agent.attributes = object(agent.attributes);
    atLeast(agent.lastSeen);
    this.agents.set(key, agent);
    this.#changed.add(key);
  }

  #setPending(pending) {
    this.pending = Array.isArray(pending) ? pending : [];
    this.dispatchEvent(new Event("pending"));
  }

  #say(link) {
    this.link = link;
    this.dispatchEvent(new Event("link"));
  }

  // Timers do not run at full rate in a hidden tab and frames do not come at all: there, once a second.
  #ask() {
    if (this.#asked) return;
    this.#asked = true;
    const tell = () => {
      this.#asked = false;
      const detail = { keys: this.#changed, replaced: this.#replaced };
      this.#changed = new Set();
      this.#replaced = false;
      this.dispatchEvent(new CustomEvent("agents", { detail }));
    };
    if (document.hidden) {
      setTimeout(tell, 1000);
    } else {
      requestAnimationFrame(tell);
    }
  }

  /** Lets an identifier in. */
  approve(id, name) {
    return call("POST", `/pending/${encodeURIComponent(id)}/approve`, name === "" ? {} : { name });
  }

  /** Keeps an identifier out. */
  refuse(id) {
    return call("POST", `/pending/${encodeURIComponent(id)}/refuse`, {});
  }
}

export const fleet = new Fleet();
