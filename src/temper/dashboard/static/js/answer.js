// One answer as it is drawn: thinking (folded), text, trouble, figures.

import { renderMarkdown } from "./markdown.js";
import { drawRating } from "./rating.js";

/** Drawing costs the cores that the model computes on, so a streaming answer is drawn this often at most. */
const REDRAW_MS = 50;

const FINISHES = { length: "reached the token limit", stop: "", tool_calls: "asked for a tool" };

/** The view of `turn`, an assistant's turn of the conversation. Call `changed()` after changing the turn. */
export class AnswerView {
  constructor(turn) {
    this.turn = turn;
    this.element = document.getElementById("answer-template").content.firstElementChild.cloneNode(true);
    this.parts = Object.fromEntries(
      [...this.element.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]),
    );
    this.timer = null;
    this.draw();
  }

  changed() {
    this.timer ??= setTimeout(() => {
      this.timer = null;
      this.draw();
      this.element.dispatchEvent(new CustomEvent("drawn", { bubbles: true }));
    }, REDRAW_MS);
  }

  draw() {
    const { turn, parts } = this;
    const streaming = turn.state === "streaming";
    const thinking = streaming && turn.reasoning && !turn.content;
    this.element.setAttribute("aria-busy", String(streaming));

    parts.thinking.hidden = !turn.reasoning;
    parts.thinkingTitle.textContent = thinking ? "Thinking…" : thoughtFor(turn);
    parts.thinking.classList.toggle("active", thinking);
    if (parts.thinking.open) parts.thinkingText.textContent = turn.reasoning;

    renderMarkdown(parts.text, turn.content);
    parts.waiting.hidden = !streaming || Boolean(turn.content || turn.reasoning);
    parts.waitingText.textContent = turn.queued ? "Waiting in line…" : "Reading…";

    parts.trouble.hidden = !turn.trouble;
    parts.troubleText.textContent = turn.trouble ?? "";
    parts.retry.hidden = !turn.canRetry;

    parts.figures.textContent = streaming ? "" : figures(turn);
    parts.actions.hidden = streaming;
    parts.copy.hidden = !turn.content;
    drawRating(this);
  }
}

function thoughtFor({ thought_ms, usage }) {
  const tokens = usage?.completion_tokens_details?.reasoning_tokens;
  const time = thought_ms === undefined ? "" : ` for ${seconds(thought_ms)}`;
  return `Thought${time}${tokens ? ` · ${count(tokens, "token")}` : ""}`;
}

/** "128 tokens/s · first token 85 ms · 42 tokens in 410 ms · …", as far as it is known. */
export function figures({ usage, first_ms, last_ms, total_ms, pieces, finish, state }) {
  const words = [];
  const tokens = usage?.completion_tokens ?? null;
  // Without the server's count, pieces stand in for tokens: a piece holds one or more of them.
  const counted = tokens ?? pieces ?? 0;
  if (counted > 1 && last_ms > first_ms) {
    const rate = ((counted - 1) * 1000) / (last_ms - first_ms);
    words.push(`${tokens === null ? "about " : ""}${rate < 10 ? rate.toFixed(1) : Math.round(rate)} tokens/s`);
  }
  if (first_ms !== undefined) words.push(`first token ${seconds(first_ms)}`);
  if (tokens !== null && total_ms !== undefined) words.push(`${count(tokens, "token")} in ${seconds(total_ms)}`);
  const cached = usage?.prompt_tokens_details?.cached_tokens ?? usage?.prompt_cache_hit_tokens;
  if (cached) words.push(`${cached} of ${usage.prompt_tokens} cached`);
  if (state === "stopped") words.push("stopped by you");
  else if (FINISHES[finish]) words.push(FINISHES[finish]);
  return words.join(" · ");
}

function seconds(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return `${(ms / 1000).toFixed(ms < 10000 ? 2 : 1)} s`;
}

function count(number, word) {
  return `${number} ${word}${number === 1 ? "" : "s"}`;
}
