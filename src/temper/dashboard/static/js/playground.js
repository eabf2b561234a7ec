// The playground: the composer, the messages, and one request at a time.

import { AnswerView } from "./answer.js";
import { listModels, streamChat, Trouble } from "./api.js";
import { setUpCharts } from "./charts.js";
import { firstMistake, offerModels, setUpControls, settingsBody, systemPrompt } from "./controls.js";
import { Conversation } from "./conversation.js";
import { setUpPanels } from "./panels.js";
import { rate } from "./rating.js";

const byId = (id) => document.getElementById(id);
const [question, send, stop, clear] = ["question", "send", "stop", "clear"].map(byId);
const [scroll, welcome, messages] = ["scroll", "welcome", "messages"].map(byId);

const conversation = new Conversation();
const views = new Map();
let running = null;

// -- asking ------------------------------------------------------------------------------------------

async function ask(text) {
  if (running) return;
  conversation.turns.push({ role: "user", content: text });
  await answer();
}

/** Generate an answer to what stands at the end of the conversation. */
async function answer() {
  const turn = { role: "assistant", content: "", reasoning: "", state: "streaming", pieces: 0 };
  const mistake = firstMistake();
  conversation.turns.push(turn);
  if (mistake) {
    Object.assign(turn, { state: "failed", trouble: mistake, canRetry: true });
    finish(turn, null);
    return;
  }
  const body = { ...settingsBody(), messages: conversation.messagesBefore(turn, systemPrompt()) };
  running = new AbortController();
  showAll();
  toBottom();
  announce("The model is answering.");
  const began = performance.now();
  const since = () => Math.round((performance.now() - began) * 10) / 10;
  try {
    for await (const piece of streamChat(body, running.signal)) take(turn, piece, since);
    turn.state = "done";
  } catch (error) {
    if (running.signal.aborted) {
      turn.state = "stopped";
    } else {
      if (!(error instanceof Trouble)) console.error(error);
      const trouble = error instanceof Trouble ? error : new Trouble("Something went wrong in this page.");
      Object.assign(turn, { state: "failed", trouble: trouble.message, canRetry: trouble.canRetry });
    }
  }
  running = null;
  finish(turn, since());
}

function take(turn, piece, since) {
  if (piece.queued) turn.queued = true;
  if (piece.usage) turn.usage = piece.usage;
  if (piece.id) Object.assign(turn, { id: piece.id, model: piece.model });
  if (piece.finish) turn.finish = piece.finish;
  if (piece.reasoning || piece.content) {
    const now = since();
    turn.first_ms ??= now;
    turn.last_ms = now;
    turn.pieces += 1;
    turn.reasoning += piece.reasoning ?? "";
    if (piece.content && turn.reasoning) turn.thought_ms ??= now - turn.first_ms;
    turn.content += piece.content ?? "";
  }
  views.get(turn).changed();
}

function finish(turn, total_ms) {
  if (total_ms !== null) turn.total_ms = total_ms;
  conversation.save();
  showAll();
  if (following) toBottom();
  if (turn.state === "done") announce(`Answer complete. ${turn.content.slice(0, 400)}`);
  else announce(turn.state === "stopped" ? "Stopped." : turn.trouble);
}

function regenerate() {
  if (running) return;
  if (conversation.turns.at(-1)?.role === "assistant") conversation.turns.pop();
  answer();
}

// -- showing -----------------------------------------------------------------------------------------

function showAll() {
  welcome.hidden = conversation.turns.length > 0;
  const elements = conversation.turns.map((turn, index) => {
    if (!views.has(turn)) {
      views.set(turn, turn.role === "user" ? { element: userMessage(turn), draw() {} } : new AnswerView(turn));
    }
    const view = views.get(turn);
    view.draw();
    view.element.classList.toggle("last", index === conversation.turns.length - 1);
    return view.element;
  });
  for (const turn of views.keys()) {
    if (!conversation.turns.includes(turn)) views.delete(turn);
  }
  // Touch only what changed: moving an element would read it out again, and fold its thinking.
  elements.forEach((element, index) => {
    if (messages.children[index] !== element) messages.insertBefore(element, messages.children[index] ?? null);
  });
  while (messages.children.length > elements.length) messages.lastChild.remove();
  send.hidden = running !== null;
  stop.hidden = running === null;
  clear.disabled = running !== null || conversation.turns.length === 0;
}

function userMessage(turn) {
  const item = document.createElement("li");
  item.className = "message user";
  const who = document.createElement("span");
  who.className = "hidden";
  who.textContent = "You: ";
  const text = document.createElement("div");
  text.className = "bubble";
  text.textContent = turn.content;
  item.append(who, text);
  return item;
}

let following = true;
scroll.addEventListener("scroll", () => {
  following = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 60;
});
messages.addEventListener("drawn", () => {
  if (following) toBottom();
});

function toBottom() {
  following = true;
  scroll.scrollTop = scroll.scrollHeight;
}

function announce(words) {
  byId("announce").textContent = words;
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // The clipboard API needs https or localhost; this works everywhere.
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  const label = button.textContent;
  button.textContent = "Copied";
  announce("Copied.");
  setTimeout(() => {
    button.textContent = label;
  }, 1200);
}

async function judge(turn, value) {
  const kept = await rate(turn, value, conversation.messagesBefore(turn, systemPrompt())).catch(() => false);
  views.get(turn)?.draw();
  conversation.save();
  announce(kept ? (turn.rating ? `Rated as ${turn.rating}.` : "Rating taken back.") : "The rating could not be kept.");
}

// -- wiring ------------------------------------------------------------------------------------------

function submit() {
  const text = question.value.trim();
  if (!text || running) return;
  question.value = "";
  fitQuestion();
  ask(text);
}

function fitQuestion() {
  question.style.height = "auto";
  question.style.height = `${Math.min(question.scrollHeight, 220)}px`;
}

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
question.addEventListener("input", fitQuestion);
question.addEventListener("keydown", (event) => {
  // While an input method composes (Chinese, Japanese, …), Enter chooses a word and must not send.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  submit();
});
stop.addEventListener("click", () => {
  running?.abort();
  question.focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) running?.abort();
});
clear.addEventListener("click", () => {
  conversation.clear();
  showAll();
  question.focus();
});
welcome.addEventListener("click", (event) => {
  const example = event.target.closest(".examples button");
  if (example) ask(example.textContent);
});
messages.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const item = button.closest(".message");
  const turn = conversation.turns[[...messages.children].indexOf(item)];
  if (button.dataset.part === "copy") copy(turn.content, button);
  if (button.dataset.part === "regenerate" || button.dataset.part === "retry") regenerate();
  if (button.dataset.part === "good" || button.dataset.part === "bad") judge(turn, button.dataset.part);
  if ("copyCode" in button.dataset) copy(button.closest(".code").querySelector("code").textContent, button);
});
messages.addEventListener(
  "toggle",
  (event) => {
    // Folded thinking is not kept up to date while it streams; unfolding draws it.
    for (const view of views.values()) {
      if (view.element.contains(event.target)) view.draw();
    }
  },
  true,
);
window.addEventListener("pagehide", () => conversation.save());

setUpControls();
setUpPanels();
setUpCharts();
showAll();
toBottom();

async function showModels() {
  try {
    offerModels(await listModels());
  } catch {
    // The status in the header says what is wrong with the server; the list keeps the name it came with.
  }
}
showModels();
document.body.addEventListener("key-changed", showModels);
