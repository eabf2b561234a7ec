// The settings form: what it adds to a request, and how it is remembered in this tab.

const STORED_AS = "temper.settings";
const NUMBERS = [
  "temperature", "top_p", "top_k", "min_p", "max_tokens", "seed",
  "repetition_penalty", "no_repeat_ngram_size", "presence_penalty", "frequency_penalty",
];
const form = document.getElementById("controls");
const field = (name) => form.elements.namedItem(name);

export function setUpControls() {
  restore();
  showDependents();
  form.addEventListener("input", () => {
    showDependents();
    save();
  });
  form.addEventListener("reset", () => {
    // Runs before the browser empties the fields.
    setTimeout(() => {
      showDependents();
      save();
    });
  });
  form.addEventListener("submit", (event) => event.preventDefault());
}

/** Offer `names` in the model list, keeping the choice where it still exists. */
export function offerModels(names) {
  const select = field("model");
  const chosen = stored().model ?? select.value;
  select.replaceChildren(...names.map((name) => new Option(name, name)));
  if (names.includes(chosen)) select.value = chosen;
}

/** The system prompt, or null. */
export function systemPrompt() {
  return field("system").value.trim() || null;
}

/** Everything that the settings add to a request. An empty field is left out: the server's profile decides. */
export function settingsBody() {
  const body = {};
  if (field("model").value) body.model = field("model").value;
  if (field("preset").value) body.preset = field("preset").value;
  for (const name of NUMBERS) {
    const value = field(name).valueAsNumber;
    if (Number.isFinite(value)) body[name] = value;
  }
  const schedule = temperatureSchedule();
  if (schedule) body.temperature_schedule = schedule;
  const effort = field("effort")?.value;
  const budget = field("budget_tokens")?.valueAsNumber;
  if (effort) body.reasoning_effort = effort;
  if (Number.isFinite(budget)) body.thinking = { type: "enabled", budget_tokens: budget };
  if (field("stop_strings").value) body.stop = [field("stop_strings").value];
  if (field("graceful_end").checked) body.graceful_end = true;
  return body;
}

/** The first field whose value breaks its own limits, in words; null when all are fine. */
export function firstMistake() {
  const inputs = [...form.querySelectorAll("input")];
  const wrong = inputs.find(isWrong);
  for (const input of inputs) input.setAttribute("aria-invalid", String(input === wrong));
  if (wrong) {
    reveal(wrong);
    return `${labelOf(wrong)}: ${wrong.validationMessage}`;
  }
  if (field("schedule_kind").value === "list" && !temperatureSchedule()?.values.every(Number.isFinite)) {
    reveal(field("schedule_values"));
    return "Temperature schedule: write numbers with commas between them, such as 1.0, 0.8, 0.6.";
  }
  return null;
}

function isWrong({ validity, step }) {
  // For fractions, `step` is only what the arrow keys do: 0.33 is as good as 0.35.
  const { rangeUnderflow, rangeOverflow, badInput, valueMissing, stepMismatch } = validity;
  return rangeUnderflow || rangeOverflow || badInput || valueMissing || (stepMismatch && step === "1");
}

function temperatureSchedule() {
  const kind = field("schedule_kind").value;
  if (!kind) return null;
  if (kind === "list") {
    const words = field("schedule_values").value.split(/[\s,，]+/).filter(Boolean);
    return { kind, values: words.length ? words.map(Number) : [NaN] };
  }
  return {
    kind,
    start: field("schedule_start").valueAsNumber,
    end: field("schedule_end").valueAsNumber,
    steps: field("schedule_steps").valueAsNumber,
  };
}

function labelOf(element) {
  return element.labels[0].textContent;
}

function reveal(element) {
  const folded = element.closest("details");
  if (folded) folded.open = true;
  element.focus();
}

function showDependents() {
  const kind = field("schedule_kind").value;
  form.querySelector('[data-schedule="range"]').hidden = !["linear", "cosine", "paragraph"].includes(kind);
  form.querySelector('[data-schedule="list"]').hidden = kind !== "list";
  for (const name of ["schedule_start", "schedule_end", "schedule_steps"]) field(name).required = Boolean(kind) && kind !== "list";

  // A preset's values show in the empty fields that they will fill.
  const preset = field("preset").selectedOptions[0];
  const values = JSON.parse(preset.dataset.values ?? "{}");
  const filled = { ...values.sampling, max_tokens: values.max_tokens };
  for (const name of NUMBERS) field(name).placeholder = filled[name] ?? (name === "seed" ? "random" : "auto");
  document.getElementById("preset-help").textContent =
    preset.dataset.description ?? "Empty fields follow the server's profile.";
}

function stored() {
  return JSON.parse(sessionStorage.getItem(STORED_AS) ?? "{}");
}

function save() {
  const values = {};
  for (const element of form.elements) {
    if (element.name) values[element.name] = element.type === "checkbox" ? element.checked : element.value;
  }
  sessionStorage.setItem(STORED_AS, JSON.stringify(values));
}

function restore() {
  for (const [name, value] of Object.entries(stored())) {
    const element = field(name);
    if (!element) continue;
    if (element.type === "checkbox") element.checked = value;
    else element.value = value;
    if (element.tagName === "SELECT" && element.selectedIndex < 0) element.selectedIndex = 0;
  }
}
