// The conversation as data, kept in this tab's sessionStorage so that a reload does not lose it.
//
// A turn is {role: "user", content} or {role: "assistant", content, reasoning, state, …}, where `state`
// is streaming, done, stopped or failed, and the rest are the figures that `answer.js` draws.

const STORED_AS = "temper.conversation";

export class Conversation {
  constructor() {
    this.turns = JSON.parse(sessionStorage.getItem(STORED_AS) ?? "[]");
    for (const turn of this.turns) {
      if (turn.state === "streaming") turn.state = "stopped";
    }
  }

  save() {
    try {
      sessionStorage.setItem(STORED_AS, JSON.stringify(this.turns));
    } catch {
      // The tab's store is full: the conversation goes on, a reload will show an earlier state of it.
    }
  }

  clear() {
    this.turns = [];
    this.save();
  }

  /** Messages for the API: what was said before `turn`, without the thinking and without empty answers. */
  messagesBefore(turn, system) {
    const before = this.turns.slice(0, this.turns.indexOf(turn)).filter((earlier) => earlier.content);
    const messages = before.map(({ role, content }) => ({ role, content }));
    return system ? [{ role: "system", content: system }, ...messages] : messages;
  }
}
