// The EventSource of headless Chromium: on a page of the gateway's origin, or ("cross") on one of another's.
import { createServer } from "node:http";
import puppeteer from "puppeteer-core";
import { NAMES, print, url } from "./print.mjs";

const server = createServer((_, response) => response.end("<title>another origin</title>"));
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const elsewhere = `http://127.0.0.1:${server.address().port}/`;

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM,
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
process.on("SIGTERM", () => browser.close().finally(() => process.exit()));
const page = await browser.newPage();
await page.exposeFunction("say", print);
await page.goto(process.argv[3] === "cross" ? elsewhere : new URL("/robots.txt", url).href);
await page.evaluate(
  (url, names) => {
    const source = new EventSource(url);
    for (const name of names) source.addEventListener(name, ({ data }) => data !== undefined && window.say(name, data));
  },
  url,
  NAMES,
);
