// Many tabs of one browser, each with an EventSource: [[url, origin], ...]. Each line on standard input is answered by
// what all of them have seen: [[numbers of events, errors, readyState], ...].
import { createInterface } from "node:readline";
import { open } from "./launch.mjs";

const tabs = [];
for (const [url, origin] of JSON.parse(process.argv[2])) {
  const page = await open(url, origin);
  await page.evaluate((url) => {
    window.seen = [];
    window.errors = 0;
    window.source = new EventSource(url);
    window.source.onmessage = ({ data }) => window.seen.push(JSON.parse(data).n);
    window.source.onerror = () => window.errors++;
  }, url);
  tabs.push(page);
}
for await (const _ of createInterface({ input: process.stdin })) {
  const look = (page) => page.evaluate(() => [window.seen, window.errors, window.source.readyState]);
  process.stdout.write(JSON.stringify(await Promise.all(tabs.map(look))) + "\n");
}
