// What a heartbeat says, as shares and lines of text. Each field may be absent, or anything at all.

import { now } from "./clock.js";
import { ago, bytes, list, number, numbers, object, percent, plain } from "./format.js";

// Always full by their nature: OpenWrt's /rom, images, snaps.
const READ_ONLY = new Set(["squashfs", "erofs", "cramfs", "romfs", "iso9660", "udf"]);

const share = (part, whole) => (part !== null && whole !== null && whole > 0 ? part / whole : null);

/** `{ total, used, share }` of physical memory; used is what is not available. */
export function memory(health) {
  const total = number(health.physicalMemoryTotal);
  const available = number(health.physicalMemoryAvailable);
  const used = total !== null && available !== null ? total - available : number(health.physicalMemoryUsed);
  return { total, used, share: share(used, total) };
}

/** The same of swap, which is what virtual memory has above physical. */
export function swap(health) {
  const total = above(health.virtualMemoryTotal, health.physicalMemoryTotal);
  const used = above(health.virtualMemoryUsed, health.physicalMemoryUsed);
  return { total, used: total === 0 ? 0 : used, share: share(used, total) };
}

function above(all, physical) {
  const [a, p] = [number(all), number(physical)];
  return a === null || p === null ? null : Math.max(0, a - p);
}

/** File systems with what `df` calls use. */
export function fileSystems(health) {
  return list(health.fileSystems).map((fs) => {
    const used = number(fs.spaceUsed);
    const available = number(fs.spaceAvailable);
    const whole = used !== null && available !== null ? used + available : number(fs.spaceTotal);
    return {
      mount: plain(fs.mount),
      type: plain(fs.type),
      name: plain(fs.name),
      total: number(fs.spaceTotal),
      used,
      available,
      share: share(used, whole),
      fixed: READ_ONLY.has(fs.type),
    };
  });
}

/** The fullest file system that can fill up, or null. */
export function fullest(health) {
  let found = null;
  for (const fs of fileSystems(health)) {
    if (!fs.fixed && fs.share !== null && (found === null || fs.share > found.share)) found = fs;
  }
  return found;
}

/** `{ share, averages }` of the processors. */
export function load(health) {
  return { share: number(health.systemLoad), averages: numbers(health.loadAverage).slice(0, 3) };
}

/** The hottest sensor, or null. */
export function hottest(health) {
  const all = temperatures(health);
  return all.length ? all.reduce((a, b) => (b.celsius > a.celsius ? b : a)) : null;
}

/** Sensors that say something. */
export function temperatures(health) {
  return list(health.temperatures)
    .map(({ label, celsius }) => ({ label: plain(label), celsius: number(celsius) }))
    .filter(({ celsius }) => celsius !== null);
}

/** `used of total`, or null where nothing is known. */
export const ofTotal = ({ used, total }) => (used === null ? null : `${bytes(used)} of ${bytes(total)}`);

/** What it means that two devices have one instance id, and what to do; empty where it is not so. */
export function collision({ address, hello, collision: other }) {
  if (other === null || typeof other !== "object") return "";
  const place = (where, host) => [plain(where), plain(host) && `(${plain(host)})`].filter(Boolean).join(" ");
  const last = number(other.last) === null ? "" : `, last ${ago(now() - other.last)}`;
  return (
    `Two devices have this instance id: the one at ${place(address, hello.hostname)}, and one at ` +
    `${place(other.address, other.hostname)}, which is kept out${last}. One is a copy of the other’s disk. ` +
    "On one of them stop triton, remove the file “instance” and the journal from its state folder, and start it again."
  );
}

/** Who came under the name of this device and was not believed; empty where nobody has. */
export function untrusted({ trust }) {
  const other = trust?.untrusted;
  if (other === null || typeof other !== "object") return "";
  const last = number(other.time) === null ? "" : `, ${ago(now() - other.time)}`;
  const key = other.keyId ? ` with the key ${plain(other.keyId)}` : "";
  return (
    `A device at ${plain(other.address)} came under this name${key} and is kept out${last}: ${plain(other.reason)}. ` +
    "Compare its key with “triton trust show” at the device; “poseidon trust accept” lets it in."
  );
}

/** The columns of one agent in the fleet, made once for each change. */
export function summary(agent) {
  const { health, hello } = agent;
  const cpu = load(health);
  const ram = memory(health);
  const disk = fullest(health);
  const averages = cpu.averages.map((v) => v.toFixed(2)).join(" ");
  const address = plain(agent.address);
  const system = [plain(hello.os), plain(hello.arch)].filter(Boolean).join(" · ");
  const found = {
    name: plain(agent.name),
    instance: plain(agent.instance),
    up: agent.state === "up",
    collision: collision(agent) || untrusted(agent),
    warning: collision(agent) ? "collision" : "untrusted",
    since: number(agent.since),
    seen: number(agent.lastSeen),
    address,
    host: address.replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1"),
    hostname: plain(hello.hostname),
    system: system || (agent.plain ? "plain Triton" : ""),
    load: {
      share: cpu.share,
      text: cpu.share === null ? (averages.split(" ")[0] || "–") : percent(cpu.share),
      title: averages ? `Load average ${averages}` : null,
    },
    memory: { share: ram.share, text: percent(ram.share), title: ofTotal(ram) },
    disk: {
      share: disk?.share ?? null,
      text: percent(disk?.share ?? null),
      title: disk && `${disk.mount}: ${bytes(disk.available)} free of ${bytes(disk.total)}`,
    },
  };
  const labels = [...Object.values(object(agent.attributes)), ...Object.values(object(hello.labels))];
  found.haystack = [found.name, found.instance, address, found.hostname, system, ...labels.map((v) => plain(v))]
    .join("\n")
    .toLowerCase();
  return found;
}
