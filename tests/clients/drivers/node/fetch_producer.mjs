// Node's own fetch.
import { readFileSync } from "node:fs";

const [, , url] = process.argv;
for (const { body, chunked } of JSON.parse(readFileSync(0, "utf8"))) {
  const streamed = { body: new Blob([body]).stream(), duplex: "half" };
  const headers = { "Content-Type": "application/json" };
  const response = await fetch(url, { method: "POST", headers, ...(chunked ? streamed : { body }) });
  console.log(JSON.stringify([response.status, await response.text()]));
}
