// A headless browser (BROWSER: chromium or firefox, BROWSER_PATH), and a page of another origin than the gateway's.
import { createServer } from "node:http";
import puppeteer from "puppeteer-core";

const firefox = process.env.BROWSER === "firefox";
export const browser = await puppeteer.launch({
  browser: firefox ? "firefox" : "chrome",
  executablePath: process.env.BROWSER_PATH,
  args: firefox ? [] : ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
process.on("SIGTERM", () => browser.close().finally(() => process.exit()));

const server = createServer((_, response) => {
  response.setHeader("content-type", "text/html");
  response.end("<title>another origin</title>");
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));

// Opens a tab on a page of the origin of `url`, or ("cross") of another's.
export async function open(url, origin) {
  const page = await browser.newPage();
  const elsewhere = `http://127.0.0.1:${server.address().port}/`;
  await page.goto(origin === "cross" ? elsewhere : new URL("/robots.txt", url).href);
  return page;
}
