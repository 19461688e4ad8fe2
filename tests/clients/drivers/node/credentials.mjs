// The EventSource and fetch of headless Chromium, with credentials, on pages of two origins: argument 2 is a port for the
// pages, then come URLs of streams. Prints for each origin and URL what came.
import { createServer } from "node:http";
import puppeteer from "puppeteer-core";

const [port, ...urls] = process.argv.slice(2);
const server = createServer((_, response) => response.end("<title>another origin</title>"));
await new Promise((resolve) => server.listen(Number(port), "127.0.0.1", resolve));
const browser = await puppeteer.launch({
  executablePath: process.env.BROWSER_PATH,
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--host-resolver-rules=MAP other.example 127.0.0.1"],
});
process.on("SIGTERM", () => browser.close().finally(() => process.exit()));

const seen = {};
for (const host of ["127.0.0.1", "other.example"]) {
  const page = await browser.newPage();
  await page.goto(`http://${host}:${port}/`);
  seen[host] = await page.evaluate(async (urls) => {
    const ID = '[{"topic":"a","partition":0,"offset":0}]';
    const event = (url, withCredentials) =>
      new Promise((resolve) => {
        const source = new EventSource(url, { withCredentials });
        const end = (what) => (source.close(), resolve(what));
        source.onmessage = ({ data }) => end(JSON.parse(data).n);
        source.onerror = () => end("refused");
      });
    const status = (url) =>
      fetch(url, { method: "GET", credentials: "include", headers: { "Last-Event-ID": ID } }).then(
        (answer) => (answer.body.cancel(), answer.status),
        () => "refused",
      );
    const found = [];
    for (const url of urls) {
      found.push({ with: await event(url, true), without: await event(url, false), fetched: await status(url) });
    }
    return found;
  }, urls);
}
console.log(JSON.stringify(seen));
await browser.close();
server.close();
