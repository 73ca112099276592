// Asks each argument through the TypeScript SDK; prints what the SDK made of it, and the sha256 of every body it received.
import { createHash } from "node:crypto";
import { createRequire } from "node:module";

const { default: Anthropic } = createRequire(process.env.RETOLD_CLIENTS + "/package.json")("@anthropic-ai/sdk");
const digests = [];

async function digest(status, body) {
  const hash = createHash("sha256");
  try {
    for await (const chunk of body) hash.update(chunk);
  } catch {
    return [status, hash.digest("hex"), "broke off"];
  }
  return [status, hash.digest("hex"), "whole"];
}

async function hashing(url, init) {
  const response = await fetch(url, init);
  const [seen, passed] = response.body.tee();
  digests.push(digest(response.status, seen));
  return new Response(passed, response);
}

const client = new Anthropic({ fetch: hashing });
for (const prompt of process.argv.slice(2)) {
  let events = 0;
  try {
    const messages = [{ role: "user", content: prompt }];
    const stream = client.messages.stream({ model: "claude-sonnet-5-5", max_tokens: 64, messages });
    for await (const _ of stream) events++;
    console.log(JSON.stringify([prompt, events, (await stream.finalMessage()).content[0].text]));
  } catch (error) {
    console.log(JSON.stringify([prompt, events, error.constructor.name, error.message]));
  }
}
for (const one of digests) console.log(JSON.stringify(await one));
