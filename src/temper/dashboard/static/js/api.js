// The public HTTP API as the playground uses it, and its errors in plain words.

import { readEvents } from "./events.js";
import { fetchWithKey } from "./key.js";

/** Something went wrong; `message` is for the person. `canRetry`: the same again may work. */
export class Trouble extends Error {
  constructor(message, { canRetry = true } = {}) {
    super(message);
    this.canRetry = canRetry;
  }
}

const CUT_OFF = "The connection ended before the answer was complete. What arrived so far is kept.";

/** Names of the models that the server offers. */
export async function listModels() {
  const response = await fetchWithKey("/v1/models");
  if (!response.ok) throw await troubleOf(response);
  const { data } = await response.json();
  return data.map((model) => model.id);
}

/**
 * Ask for a chat completion and hand over each piece: `{queued}`, `{reasoning}`, `{content}`, `{finish}`,
 * `{id, model}` or `{usage}`. Abort `signal` to stop; the server then stops computing.
 */
export async function* streamChat(body, signal) {
  let response;
  try {
    response = await fetchWithKey(
      "/v1/chat/completions",
      {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
        signal,
      },
      { insist: true },
    );
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Trouble("The server can't be reached. Is it still running?");
  }
  if (!response.ok) throw await troubleOf(response);

  try {
    for await (const event of readEvents(response)) {
      if (event.comment !== undefined) {
        yield { queued: true };
      } else if (event.data === "[DONE]") {
        return;
      } else {
        yield* piecesOf(JSON.parse(event.data));
      }
    }
  } catch (error) {
    if (signal.aborted || error instanceof Trouble) throw error;
    throw new Trouble(CUT_OFF);
  }
  throw new Trouble(CUT_OFF);
}

function* piecesOf(chunk) {
  if (chunk.error) {
    throw new Trouble(`The answer was cut off: ${sentence(chunk.error.message)} What arrived so far is kept.`);
  }
  if (chunk.usage) yield { usage: chunk.usage };
  const choice = chunk.choices?.[0];
  if (!choice) return;
  if (choice.finish_reason) yield { id: chunk.id, model: chunk.model };
  const reasoning = choice.delta?.reasoning_content ?? choice.delta?.reasoning;
  if (reasoning) yield { reasoning };
  if (choice.delta?.content) yield { content: choice.delta.content };
  if (choice.finish_reason) yield { finish: choice.finish_reason };
}

async function troubleOf(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // Not the API's envelope (a proxy's page, say): the status code must do.
  }
  const says = sentence(error.message ?? "");
  const wait = Number(response.headers.get("Retry-After"));
  const later = wait > 0 ? `Try again in ${Math.ceil(wait)} s.` : "Try again in a moment.";
  switch (response.status) {
    case 401:
      return new Trouble("The server did not accept the API key. Try again to enter another one.");
    case 403:
      return new Trouble(`The server does not let this page in. ${says}`, { canRetry: false });
    case 404:
      return new Trouble(`The server does not offer this. ${says}`, { canRetry: false });
    case 413:
      return new Trouble("The message is larger than the server accepts. Shorten it.", { canRetry: false });
    case 429:
      return new Trouble(`The server is busy: too many requests are waiting. ${later}`);
    case 503:
      return new Trouble(`The server can't take requests now. ${says} ${later}`.replace("  ", " "));
  }
  if (error.code === "context_length_exceeded") {
    const advice = "Start a new conversation, shorten the message, or lower Max tokens.";
    return new Trouble(`The conversation is too long for this model. ${says} ${advice}`, { canRetry: false });
  }
  if (response.status < 500) {
    const field = error.param ? ` (field: ${error.param})` : "";
    return new Trouble(`The server did not accept this request${field}. ${says}`, { canRetry: false });
  }
  return new Trouble(`The server failed while working on this. ${says} ${later}`.replace("  ", " "));
}

function sentence(text) {
  const trimmed = text.trim();
  if (!trimmed) return "";
  const capital = trimmed[0].toUpperCase() + trimmed.slice(1);
  return /[.!?。！？)]$/.test(capital) ? capital : `${capital}.`;
}
