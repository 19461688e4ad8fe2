// Node's own fetch, with a loop and a reader of its user's.
import { print, url } from "./print.mjs";

let last = "";
const take = (block) => {
  const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s, 2)));
  last = fields.id ?? last;
  if (fields.data !== undefined) print(fields.event ?? "message", fields.data);
};
for (;;) {
  try {
    const response = await fetch(url, { headers: last ? { "Last-Event-ID": last } : {} });
    let rest = "";
    for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
      const blocks = (rest + piece).split("\n\n");
      rest = blocks.pop();
      blocks.forEach(take);
    }
  } catch {
    // Cut: the loop goes on with the last id.
  }
  await new Promise((resolve) => setTimeout(resolve, 100));
}
