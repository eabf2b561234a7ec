// Thumbs under an answer: what the person thinks of it, kept by the server beside the conversation.

import { fetchWithKey } from "./key.js";

const VALUES = ["good", "bad"];

/** Show on the buttons of `view` (an AnswerView) what its turn was rated. */
export function drawRating(view) {
  const { turn, parts } = view;
  for (const value of VALUES) {
    const button = parts[value];
    if (!button) continue; // this server keeps no ratings
    button.hidden = !turn.id || !turn.content;
    button.setAttribute("aria-pressed", String(turn.rating === value));
  }
}

/** Rate `turn`; the same again takes it back. `messages`: the conversation before it. True when it was kept. */
export async function rate(turn, value, messages) {
  const rating = turn.rating === value ? null : value;
  const body = { id: turn.id, model: turn.model, rating, messages, answer: turn.content };
  const response = await fetchWithKey(
    "/v1/feedback",
    { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) },
    { insist: true },
  );
  if (!response.ok) return false;
  turn.rating = rating;
  return true;
}
