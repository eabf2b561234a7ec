// The API key, for servers that ask for one: kept in this tab's sessionStorage and nowhere else.

const STORED_AS = "temper.key";
const dialog = document.getElementById("key-dialog");
const input = document.getElementById("key");
const rejected = document.getElementById("key-error");
let asking = null;
let declined = false;

export function currentKey() {
  return sessionStorage.getItem(STORED_AS);
}

/** Headers that carry the key, if there is one. */
export function keyHeaders() {
  const key = currentKey();
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/**
 * Ask the person for a key; one dialog however many requests were refused. Resolves to true when a new
 * key was given. Whoever said "not now" is asked again only when they do something (`insist`). A refusal of a
 * key that was replaced while the request was on its way (`refused`) asks nobody.
 */
export function askForKey({ insist = false, refused = currentKey() } = {}) {
  if (asking) return asking;
  if (refused !== currentKey()) return Promise.resolve(true);
  if (declined && !insist) return Promise.resolve(false);
  rejected.hidden = currentKey() === null;
  input.value = "";
  asking = new Promise((resolve) => {
    const finish = (given) => {
      declined = !given;
      asking = null;
      dialog.close();
      resolve(given);
      if (given) document.body.dispatchEvent(new CustomEvent("key-changed"));
    };
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      const key = input.value.trim();
      if (key) sessionStorage.setItem(STORED_AS, key);
      finish(key !== "");
    };
    document.getElementById("key-cancel").onclick = () => finish(false);
    dialog.oncancel = (event) => {
      event.preventDefault();
      finish(false);
    };
  });
  dialog.showModal();
  input.focus();
  return asking;
}

/** `fetch` with the key; on 401 it asks for one and tries once more. */
export async function fetchWithKey(url, options = {}, { insist = false } = {}) {
  const attempt = () => fetch(url, { ...options, headers: { ...options.headers, ...keyHeaders() } });
  const refused = currentKey();
  const response = await attempt();
  if (response.status !== 401) return response;
  return (await askForKey({ insist, refused })) ? attempt() : response;
}
