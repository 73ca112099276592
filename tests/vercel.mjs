// An agent of the Vercel AI SDK with one tool, which writes files at absolute paths. Its requests name its folder.
import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const { resolve } = createRequire(process.env.RETOLD_CLIENTS + "/package.json");
const { createAnthropic } = await import(pathToFileURL(resolve("@ai-sdk/anthropic")));
const { jsonSchema, stepCountIs, streamText, tool } = await import(pathToFileURL(resolve("ai")));

const properties = { file_path: { type: "string" }, content: { type: "string" } };
const write = tool({
  description: "Write a file",
  inputSchema: jsonSchema({ type: "object", properties, required: Object.keys(properties) }),
  execute: async ({ file_path, content }) => {
    writeFileSync(file_path, content);
    return `wrote ${file_path}`;
  },
});
const { textStream } = streamText({
  model: createAnthropic()("claude-sonnet-5-5"),
  system: `You work in ${process.cwd()}.`,
  prompt: process.argv[2],
  tools: { write },
  stopWhen: stepCountIs(3),
  maxRetries: 0,
});
for await (const text of textStream) process.stdout.write(text);
