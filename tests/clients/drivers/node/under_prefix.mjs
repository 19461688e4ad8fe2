// What headless Chromium makes of a gateway's pages below a path: argument 2 is their root, 3 a folder for pictures.
import puppeteer from "puppeteer-core";

const [root, pictures] = process.argv.slice(2);
const browser = await puppeteer.launch({
  executablePath: process.env.BROWSER_PATH,
  acceptInsecureCerts: true,
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
process.on("SIGTERM", () => browser.close().finally(() => process.exit()));
const page = await browser.newPage();
await page.setViewport({ width: 1000, height: 900 });
const failed = [];
// The site's icon is not ours, and streams are closed here.
const ours = (request) => !request.url().endsWith("/favicon.ico") && request.resourceType() !== "eventsource";
const note = (what, request) => ours(request) && failed.push(`${what} ${request.url()}`);
page.on("response", (answer) => answer.status() >= 400 && note(answer.status(), answer.request()));
page.on("requestfailed", (request) => note(request.failure().errorText, request));
page.on("pageerror", (error) => failed.push(String(error)));

async function seen(name) {
  await page.screenshot({ path: `${pictures}/${name}.png` });
  return { url: page.url(), title: await page.title(), failed: failed.splice(0) };
}

// The page for people, and where its links lead.
await page.goto(root, { waitUntil: "networkidle0" });
const front = await seen("front");
front.links = await page.$$eval("a", (all) => all.map((a) => a.href));
front.statuses = await page.evaluate(
  (links, origin) => Promise.all(links.filter((l) => l.startsWith(origin)).map((l) => fetch(l).then((r) => r.status))),
  front.links,
  new URL(root).origin,
);
front.protocol = await page.evaluate(() => performance.getEntriesByType("navigation")[0].nextHopProtocol);
// What it says to try in a browser, with a stream that there is.
const code = (await page.$eval("code", (element) => element.textContent)).match(/new EventSource\("(.*?)"\)/)[1];
front.events = await page.evaluate(
  (url) =>
    new Promise((resolve, reject) => {
      const numbers = [];
      const source = new EventSource(url);
      source.onerror = () => reject(new Error(`no stream at ${source.url}`));
      source.onmessage = ({ data }) => {
        numbers.push(JSON.parse(data).n);
        if (numbers.length === 3) source.close(), resolve(numbers);
      };
    }),
  code.replace("NAME", "edits") + "?since=1",
);

// The list, as a page.
await page.goto(new URL("v2/stream", root).href, { waitUntil: "networkidle0" });
const list = await seen("list");
list.links = await page.$$eval("a", (all) => all.map((a) => a.href));

// Swagger UI, and where it sends a request that is tried out.
await page.goto(new URL("?doc", root).href, { waitUntil: "networkidle0" });
await page.waitForSelector(".opblock");
const doc = await seen("doc");
doc.servers = await page.$$eval(".servers option", (all) => all.map((option) => option.value));
const [block] = (await page.$$(".opblock")).slice(-1);
await (await block.$("button.opblock-control-arrow")).click();
await (await block.waitForSelector("button.try-out__btn")).click();
// It fills in a Last-Event-ID of its own making.
await (await block.waitForSelector("button.json-schema-form-item-remove")).click();
const answered = page.waitForResponse((answer) => answer.request().url().includes("/v2/stream/"));
await (await block.waitForSelector("button.execute")).click();
const answer = await answered;
doc.tried = { url: answer.url(), status: answer.status(), type: answer.headers()["content-type"] };
await page.screenshot({ path: `${pictures}/tried.png` });

console.log(JSON.stringify({ front, list, doc }));
await browser.close();
