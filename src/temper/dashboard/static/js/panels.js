// On a narrow screen the side panels are drawers, opened from the header.

/** Wire the buttons that open and close panels. */
export function setUpPanels() {
  const buttons = [...document.querySelectorAll("[data-panel]")];
  const show = (name) => {
    for (const button of buttons) {
      const open = button.dataset.panel === name && button.getAttribute("aria-expanded") === "false";
      button.setAttribute("aria-expanded", String(open));
      const panel = document.getElementById(button.dataset.panel);
      panel.classList.toggle("open", open);
      if (open) panel.querySelector("button, input, select, textarea")?.focus();
    }
  };
  for (const button of buttons) button.addEventListener("click", () => show(button.dataset.panel));
  const close = () => {
    const open = buttons.find((button) => button.getAttribute("aria-expanded") === "true");
    show(null);
    open?.focus();
  };
  for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", close);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && document.querySelector(".panel.open")) {
      // Closing a drawer must not also stop the answer behind it.
      event.stopImmediatePropagation();
      close();
    }
  });
}
