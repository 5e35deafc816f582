// The time that a desktop has left, quietly, and the way to more of it when little is left.

const SOON = 15 * 60; // s

export class Countdown {
  #deadline = null;

  constructor(label, extend) {
    this.label = label;
    this.extend = extend;
    setInterval(() => this.#tell(), 1000);
  }

  until(deadline) {
    this.#deadline = deadline ? Date.parse(deadline) : null;
    this.#tell();
  }

  #tell() {
    this.label.hidden = this.#deadline === null;
    const left = this.#deadline === null ? Infinity : Math.max(0, (this.#deadline - Date.now()) / 1000);
    const soon = left < SOON;
    this.label.classList.toggle("soon", soon);
    if (this.extend) this.extend.hidden = !soon;
    if (this.#deadline === null) return;
    this.label.title = `Closes at ${new Date(this.#deadline).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}`;
    this.label.textContent = left > 3600 ? `${Math.floor(left / 3600)} h ${String(Math.floor((left % 3600) / 60)).padStart(2, "0")} min left`
      : left > 120 ? `${Math.floor(left / 60)} min left`
      : left > 0 ? `${Math.ceil(left)} s left` : "closing";
  }
}
