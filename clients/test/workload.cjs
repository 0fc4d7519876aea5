// What clients/redis-rs/src/main.rs does, with ioredis: see there for arguments, input and output.

const readline = require("node:readline");
const { Cluster } = require("ioredis");

async function putAndGet(cluster, key, value) {
  await cluster.set(key, value);
  const read = Number(await cluster.get(key));
  if (read !== value) throw new Error(`${key} is ${read}, not ${value}`);
}

async function work(cluster, prefix, count) {
  let [done, slowest, error] = [0, 0, null];
  for (let n = 0; n < count; n++) {
    const begun = performance.now();
    try {
      await putAndGet(cluster, `${prefix}:${n}`, n);
      done++;
    } catch (failed) {
      error = failed.message;
    }
    slowest = Math.max(slowest, (performance.now() - begun) / 1000);
  }
  return { done, error, slowest };
}

const say = (line) => console.log(JSON.stringify(line));

async function connect(map, limit) {
  await map.ready(limit);
  const members = map.members(6379);
  if (members.length === 0) throw new Error("the map has no members");
  const redis = new Cluster(members, { natMap: map.natMap, redisOptions: { connectTimeout: 10000 } });
  return redis.on("error", () => {}); // each operation tells its own
}

async function main() {
  const { AddressMap } = await import("../node/external-ip.mjs");
  const [url, namespace, cluster, caFile, tokenFile, limit] = process.argv.slice(2);
  const begun = performance.now();
  const map = new AddressMap({ url, namespace, cluster, caFile, tokenFile, poll: 0.2 });
  try {
    const redis = await connect(map, Number(limit));
    say({ ready: true });
    for await (const line of readline.createInterface({ input: process.stdin })) {
      const [prefix, count] = line.split(" ");
      say(await work(redis, prefix, Number(count)));
    }
    redis.disconnect();
  } catch (failed) {
    say({ error: failed.message, after: (performance.now() - begun) / 1000 });
  }
  map.close();
}

main();
