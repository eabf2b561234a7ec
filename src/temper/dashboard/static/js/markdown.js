// A small, safe Markdown: text in, DOM nodes out.
//
// What a model writes is untrusted. So nothing here ever parses HTML: every node is made by createElement
// and filled through textContent, and only http(s) links get an href. Images are never loaded. Patterns use
// bounded or negated runs only, so that no text makes them slow, and nesting is limited.

const MAX_DEPTH = 6;

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]{0,40})/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const ITEM = /^( {0,12})([-*+]|\d{1,9}[.)])\s+(.*)$/;
const TABLE_LINE = /^ {0,3}\|?[\s:|-]*-[\s:|-]*\|[\s:|-]*$/;

const INLINE = new RegExp(
  [
    "(?<ticks>`+)(?<code>[^`\\n]{1,2000})\\k<ticks>",
    "\\*\\*(?<strong>[^*\\s](?:[^*\\n]{0,400}[^*\\s])?)\\*\\*",
    "(?<![*\\w])\\*(?<em>[^*\\s](?:[^*\\n]{0,400}[^*\\s])?)\\*(?!\\w)",
    "~~(?<del>[^~\\n]{1,2000})~~",
    "!?\\[(?<label>[^\\]\\n]{1,500})\\]\\((?<target>https?://[^\\s)]{1,2000})\\)",
    "(?<url>https?://[^\\s<>\"'`)\\]}，。；：！？、）】》]{1,2000})",
  ].join("|"),
  "gu",
);

/**
 * Render `text` into `container`, replacing only the blocks that changed since the last call: while an
 * answer streams, that is the last one, so text selected above stays selected.
 */
export function renderMarkdown(container, text) {
  const blocks = splitBlocks(text);
  const old = container.renderedBlocks ?? [];
  let same = 0;
  while (same < blocks.length && same < old.length && blocks[same].source === old[same].source) same += 1;
  while (container.childNodes.length > same) container.lastChild.remove();
  for (const block of blocks.slice(same)) container.append(renderBlock(block, 0));
  container.renderedBlocks = blocks;
}

/** Top-level blocks as `{kind, source, ...}`; `source` decides whether a block must be drawn again. */
export function splitBlocks(text) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (lines[at].trim() === "") {
      at += 1;
      continue;
    }
    const { end, ...block } = readBlock(lines, at);
    blocks.push({ ...block, source: `${block.kind}\n${lines.slice(at, end).join("\n")}` });
    at = end;
  }
  return blocks;
}

function readBlock(lines, at) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) {
    let end = at + 1;
    while (end < lines.length && !isFenceEnd(lines[end], fence[1])) end += 1;
    return { kind: "code", language: fence[2], text: lines.slice(at + 1, end).join("\n"), end: Math.min(end + 1, lines.length) };
  }
  const heading = HEADING.exec(line);
  if (heading) return { kind: "heading", level: heading[1].length, text: heading[2], end: at + 1 };
  if (RULE.test(line)) return { kind: "rule", end: at + 1 };
  if (QUOTE.test(line)) {
    const inner = [];
    let end = at;
    for (; end < lines.length && QUOTE.test(lines[end]); end += 1) inner.push(QUOTE.exec(lines[end])[1]);
    return { kind: "quote", text: inner.join("\n"), end };
  }
  if (ITEM.test(line)) return readList(lines, at);
  if (line.includes("|") && at + 1 < lines.length && TABLE_LINE.test(lines[at + 1])) {
    let end = at + 2;
    while (end < lines.length && lines[end].includes("|")) end += 1;
    return { kind: "table", rows: [line, ...lines.slice(at + 2, end)].map(cellsOf), end };
  }
  let end = at + 1;
  while (end < lines.length && lines[end].trim() !== "" && !startsBlock(lines[end])) end += 1;
  return { kind: "paragraph", text: lines.slice(at, end).join("\n"), end };
}

function isFenceEnd(line, fence) {
  const trimmed = line.trim();
  return trimmed.length >= fence.length && trimmed === fence[0].repeat(trimmed.length);
}

function startsBlock(line) {
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line);
}

function readList(lines, at) {
  const [, indent, mark] = ITEM.exec(lines[at]);
  const ordered = /\d/.test(mark);
  const items = [];
  let end = at;
  while (end < lines.length) {
    const item = ITEM.exec(lines[end]);
    const depth = lines[end].length - lines[end].trimStart().length;
    if (item && item[1].length <= indent.length) {
      if (/\d/.test(item[2]) !== ordered) break;
      items.push([item[3]]);
    } else if (lines[end].trim() === "") {
      const next = lines[end + 1] ?? "";
      if (!ITEM.test(next) && !/^\s{2,}\S/.test(next)) break;
      items.at(-1).push("");
    } else if (item || depth > indent.length || !startsBlock(lines[end])) {
      items.at(-1).push(lines[end].slice(Math.min(depth, indent.length + 2)));
    } else {
      break;
    }
    end += 1;
  }
  return { kind: "list", ordered, first: ordered ? parseInt(mark, 10) : 1, items: items.map((item) => item.join("\n")), end };
}

function cellsOf(line) {
  return line.trim().replace(/^\|/, "").replace(/\|$/, "").split("|").map((cell) => cell.trim());
}

function renderBlock(block, depth) {
  switch (block.kind) {
    case "code":
      return codeBlock(block);
    case "heading": {
      // The page has its own h1 and h2; an answer's headings sit below them.
      const heading = document.createElement(`h${Math.min(6, block.level + 2)}`);
      return fill(heading, block.text);
    }
    case "rule":
      return document.createElement("hr");
    case "quote":
      return nested(document.createElement("blockquote"), block.text, depth);
    case "list": {
      const list = document.createElement(block.ordered ? "ol" : "ul");
      if (block.ordered) list.start = block.first;
      for (const item of block.items) list.append(nested(document.createElement("li"), item, depth));
      return list;
    }
    case "table":
      return table(block.rows);
    default:
      return fill(document.createElement("p"), block.text);
  }
}

function nested(element, text, depth) {
  const blocks = depth < MAX_DEPTH ? splitBlocks(text) : [];
  // A lone line needs no paragraph around it, and text nested too deep stays plain.
  if (blocks.length === 0 || (blocks.length === 1 && blocks[0].kind === "paragraph")) return fill(element, text);
  const tight = element.tagName === "LI" && blocks[0].kind === "paragraph";
  blocks.forEach((block, index) => {
    if (tight && index === 0) fill(element, block.text);
    else element.append(renderBlock(block, depth + 1));
  });
  return element;
}

function codeBlock({ language, text }) {
  const box = document.createElement("div");
  box.className = "code";
  const bar = document.createElement("div");
  bar.className = "code-bar";
  const name = document.createElement("span");
  name.textContent = language;
  const copy = document.createElement("button");
  copy.type = "button";
  copy.className = "quiet small";
  copy.dataset.copyCode = "";
  copy.textContent = "Copy";
  copy.setAttribute("aria-label", "Copy code");
  bar.append(name, copy);
  const pre = document.createElement("pre");
  pre.tabIndex = 0;
  const code = document.createElement("code");
  code.textContent = text;
  pre.append(code);
  box.append(bar, pre);
  return box;
}

function table(rows) {
  const box = document.createElement("div");
  box.className = "table";
  const element = document.createElement("table");
  rows.forEach((cells, index) => {
    const row = element.insertRow();
    for (const cell of cells.slice(0, rows[0].length)) {
      const made = document.createElement(index === 0 ? "th" : "td");
      row.append(fill(made, cell));
    }
  });
  box.append(element);
  return box;
}

function fill(element, text) {
  let at = 0;
  for (const match of text.matchAll(INLINE)) {
    if (match.index > at) element.append(text.slice(at, match.index));
    element.append(inline(match));
    at = match.index + match[0].length;
  }
  if (at < text.length) element.append(text.slice(at));
  return element;
}

function inline(match) {
  const { code, strong, em, del, label, target, url } = match.groups;
  if (code !== undefined) return withText("code", code.trim() || code);
  if (strong !== undefined) return fill(document.createElement("strong"), strong);
  if (em !== undefined) return fill(document.createElement("em"), em);
  if (del !== undefined) return withText("del", del);
  if (match[0].startsWith("!")) return document.createTextNode(match[0]);
  return link(target ?? url, label ?? url);
}

function link(target, label) {
  const address = URL.canParse(target) ? new URL(target) : null;
  if (address === null) return document.createTextNode(label);
  const anchor = withText("a", label);
  anchor.href = address.href;
  anchor.rel = "noopener noreferrer nofollow";
  anchor.target = "_blank";
  anchor.title = address.href;
  if (label.includes(address.host)) return anchor;
  // A label may claim anything; show where the link really goes.
  const pair = document.createElement("span");
  pair.append(anchor, withText("small", ` (${address.host})`));
  return pair;
}

function withText(name, text) {
  const element = document.createElement(name);
  element.textContent = text;
  return element;
}
