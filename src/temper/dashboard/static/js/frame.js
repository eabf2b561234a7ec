// What every page does: htmx requests carry the key, and the status says so when the server is gone.

import { askForKey, keyHeaders } from "./key.js";

const status = document.getElementById("status");

function showStatus(kind, words) {
  const dot = document.createElement("span");
  dot.className = `dot ${kind}`;
  const text = document.createElement("span");
  text.className = "words";
  text.textContent = words;
  status.replaceChildren(dot, text);
}

document.body.addEventListener("htmx:configRequest", (event) => {
  Object.assign(event.detail.headers, keyHeaders());
});

document.body.addEventListener("htmx:sendError", () => showStatus("bad", "Can't reach the server"));

document.body.addEventListener("htmx:responseError", (event) => {
  if (event.detail.xhr.status === 401) {
    showStatus("wait", "API key needed");
    const shown = event.detail.requestConfig.headers.Authorization;
    askForKey({ refused: shown ? shown.slice("Bearer ".length) : null });
  } else {
    showStatus("bad", `The server answered ${event.detail.xhr.status}`);
  }
});

// Identical status would be read out again every few seconds; leave the page as it is when nothing changed.
document.body.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target !== status) return;
  if (status.dataset.last === event.detail.serverResponse && status.querySelector(".state")) {
    event.detail.shouldSwap = false;
  }
  status.dataset.last = event.detail.serverResponse;
});
