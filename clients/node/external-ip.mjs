// Follows the map of External IP Controller. `natMap` is what ioredis, iovalkey (natMap) and node-redis (nodeAddressMap) take.
// Node 20 or newer, no packages.

import { readFileSync } from "node:fs";
import https from "node:https";
import { setTimeout as sleep } from "node:timers/promises";

// Nobody listens there: a member that is not in the map is refused at once. Its internal address may be anybody's outside.
const NOWHERE = { host: "127.0.0.1", port: 1 };

export class AddressMap {
  #map = {};
  #known = {}; // the last map's marks: sent back, so that no replica answers with an older map
  #stop = new AbortController();
  #ready;
  problem = null;

  // url: the listener's, https://HOST:PORT; caFile, tokenFile: read again for each question. wait, poll: seconds the server may
  // hold a question, and between two questions where it does not.
  constructor({ url, namespace, cluster, caFile, tokenFile, wait = 25, poll = 5 }) {
    if (new URL(url).protocol !== "https:") throw new Error(`${url}: the map is read over https only`);
    this.url = `${url.replace(/\/$/, "")}/v1/mapping/${namespace}/${cluster}?format=nat-map&wait=${wait}`;
    Object.assign(this, { caFile, tokenFile, wait, poll });
    this.#ready = new Promise((resolve) => this.#follow(resolve));
  }

  // "IP:PORT" inside -> { host, port } outside, from memory
  natMap = (internal) => this.#map[internal] ?? NOWHERE;

  // Resolves once there is a map; rejects after `seconds`, saying why there is none.
  async ready(seconds = 10) {
    const late = new AbortController();
    const limit = sleep(seconds * 1000, "late", { signal: late.signal }).catch(() => {});
    const first = await Promise.race([this.#ready, limit]);
    late.abort();
    if (first === "late") throw new Error(`no map in ${seconds} s: ${this.problem}`);
  }

  // Outside addresses of all members that have this internal port.
  members(port) {
    const inside = Object.keys(this.#map).filter((key) => key.endsWith(`:${port}`));
    return inside.map((key) => ({ ...this.#map[key] }));
  }

  // Follows the map no longer; the last one stays.
  close() {
    this.#stop.abort();
  }

  async #follow(ready) {
    for (let failures = 0; !this.#stop.signal.aborted; ) {
      const asked = performance.now();
      let pause;
      try {
        const changed = this.#hear(await this.#ask());
        [this.problem, failures] = [null, 0];
        if (changed) ready();
        const held = performance.now() - asked >= 1000;
        const some = Object.keys(this.#map).length > 0;
        pause = changed && some ? 0.1 : held ? 0 : this.poll;
      } catch (error) {
        this.problem = error.message || String(error.code);
        pause = Math.min(0.2 * 2 ** Math.min(++failures, 7), 15);
      }
      await sleep(pause * (750 + Math.random() * 500), null, { signal: this.#stop.signal, ref: false }).catch(() => {});
    }
  }

  #ask() {
    return new Promise((resolve, reject) => {
      const token = this.tokenFile && { Authorization: `Bearer ${readFileSync(this.tokenFile, "ascii").trim()}` };
      const signal = AbortSignal.any([this.#stop.signal, AbortSignal.timeout((this.wait + 10) * 1000)]);
      // the CA as it is now: no agent, whose connections would keep the former one
      const options = { ca: readFileSync(this.caFile), headers: { ...this.#known, ...token }, agent: false, signal };
      const request = https.get(this.url, options, (answer) => {
        const pieces = [];
        answer.on("data", (piece) => pieces.push(piece)).on("error", reject);
        answer.on("end", () =>
          resolve({ status: answer.statusCode, headers: answer.headers, body: Buffer.concat(pieces).toString() }),
        );
      });
      request.on("error", reject);
    });
  }

  // Whether there is a new map.
  #hear({ status, headers, body }) {
    // a cluster that is gone has no addresses; the position says that it was the map which was asked
    const gone = status === 404 && headers["map-position"] && body.includes("NoSuchCluster");
    if (status !== 200 && status !== 304 && !gone) {
      if (body.includes("InvalidPosition")) this.#known = {}; // of another version: begin anew
      throw new Error(`the server answers ${status}: ${body.slice(0, 200)}`);
    }
    if (status !== 304) this.#map = gone ? {} : JSON.parse(body);
    const tag = status === 304 ? this.#known["If-None-Match"] : headers.etag;
    const kept = { "If-None-Match": tag, "Map-Position": headers["map-position"] };
    this.#known = Object.fromEntries(Object.entries(kept).filter(([, value]) => value));
    return status !== 304;
  }
}
