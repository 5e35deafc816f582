// One clipboard for the browser and the desktop, where the browser allows it; a panel of text where it does not.

export class Clipboard {
  #current; // a function that gives the connection, or null
  #held = null; // a V that waits for the text
  #last = null; // the text that both sides are known to have

  constructor(root, current) {
    this.#current = current;
    this.panel = root.querySelector("[data-panel]");
    this.text = this.panel.querySelector("textarea");
    this.button = root.querySelector("[data-clipboard]");
    this.button.addEventListener("click", () => this.#toggle());
    this.text.addEventListener("input", () => this.#send(this.text.value));
    this.panel.addEventListener("keydown", (event) => { if (event.key === "Escape") this.#toggle(); });
    // coming back from another window or tab is when the browser's clipboard may have changed
    addEventListener("focus", () => this.#read());
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.#read(); });
    // Ctrl+V: the browser's own paste event needs no permission; the key follows once the text is there
    const screen = root.querySelector("[data-screen]");
    screen.addEventListener("keydown", (event) => this.#holdBack(event), { capture: true });
    document.addEventListener("paste", (event) => {
      if (event.target === this.text) return;
      this.#send(event.clipboardData?.getData("text/plain") ?? "");
      this.#typeHeld();
    });
  }

  #holdBack(event) {
    if (!event.ctrlKey || event.altKey || event.code !== "KeyV" || event.repeat) return;
    event.stopImmediatePropagation();
    this.#held = event.key;
    setTimeout(() => this.#typeHeld(), 150); // no paste event came: there is nothing to paste
  }

  #typeHeld() {
    const key = this.#held;
    this.#held = null;
    if (key) this.#current()?.sendKey(key.codePointAt(0), "KeyV");
  }

  follow(rfb) {
    this.#last = null;
    rfb.addEventListener("clipboard", (event) => this.#receive(event.detail.text));
    rfb.addEventListener("connect", () => this.#read());
  }

  async #receive(text) {
    this.#last = text;
    this.text.value = text;
    try {
      await navigator.clipboard.writeText(text);
    } catch { /* not allowed, or the page is not in front: the panel has it */ }
  }

  async #read() {
    if (!this.#current() || !document.hasFocus()) return;
    try {
      // browsers without this permission would ask at each look; there Ctrl+V and the panel do it
      const { state } = await navigator.permissions.query({ name: "clipboard-read" });
      if (state !== "denied") this.#send(await navigator.clipboard.readText());
    } catch { /* not allowed */ }
  }

  #send(text) {
    const connection = this.#current();
    if (!connection || !text || text === this.#last) return;
    this.#last = text;
    if (document.activeElement !== this.text) this.text.value = text;
    connection.clipboardPasteFrom(text);
  }

  #toggle() {
    this.panel.hidden = !this.panel.hidden;
    this.button.setAttribute("aria-expanded", String(!this.panel.hidden));
    if (this.panel.hidden) this.#current()?.focus();
    else this.text.focus();
  }
}
