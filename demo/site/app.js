// Asks for the files of this page again, and shows what the service says about them.
"use strict";

const files = ["index.html", "style.css", "app.js", "images/layers.svg", "images/icon.png", "strata.woff2"];

/** Colours the parts of the page's own address, where it has the usual shape. */
function showAddress() {
  // The reference ends at the last segment with a tag or digest; the rest is the path.
  const parts = location.pathname.match(/\/([^/]+)\/(.+)([:@])([\w.:-]+)\/([^@:]*)$/);
  if (!parts) return;
  const [, host, repository, mark, version, path] = parts.map(decodeURIComponent);
  const span = (kind, text) => Object.assign(document.createElement("span"), { className: kind, textContent: text });
  document.getElementById("url").replaceChildren(
    span("host", host), "/", span("repository", repository), mark, span("tag", version), "/", span("path", path || "index.html"));
}

/** One line of the table: a HEAD, and a GET with the ETag that came back. */
async function line(file) {
  const first = await fetch(file, { method: "HEAD", cache: "no-store" });
  const etag = first.headers.get("ETag") ?? "";
  const again = await fetch(file, { headers: { "If-None-Match": etag }, cache: "no-store" });
  return [
    [file],
    [(first.headers.get("Content-Type") ?? "").split(";")[0]],
    [Number(first.headers.get("Content-Length")).toLocaleString("en"), "number"],
    [etag.length > 14 ? etag.slice(0, 12) + "…\"" : etag],
    [String(again.status), again.status === 304 ? "good" : ""],
  ];
}

async function showFiles() {
  const lines = await Promise.all(files.map(line));
  document.getElementById("rows").replaceChildren(...lines.map((cells) => {
    const row = document.createElement("tr");
    row.append(...cells.map(([text, kind = ""]) =>
      Object.assign(document.createElement("td"), { textContent: text, className: kind })));
    return row;
  }));
}

showAddress();
showFiles().catch((error) => {
  document.getElementById("rows").firstElementChild.firstElementChild.textContent = `The files could not be asked for: ${error.message}`;
});
