// The before/after slider, the switch to power spectra, and the arrow keys from movie to movie.

for (const box of document.querySelectorAll(".compare")) {
  const slider = box.querySelector("input");
  const apply = () => box.style.setProperty("--split", `${slider.value}%`);
  slider.addEventListener("input", apply);
  apply();
}

for (const button of document.querySelectorAll("[data-view]")) {
  button.addEventListener("click", () => {
    for (const other of document.querySelectorAll("[data-view]")) other.setAttribute("aria-pressed", String(other === button));
    for (const box of document.querySelectorAll("[data-compare]")) box.hidden = box.dataset.compare !== button.dataset.view;
  });
}

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select, textarea") || event.altKey || event.ctrlKey || event.metaKey) return;
  const rel = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  document.querySelector(`a[rel="${rel}"]`)?.click();
});
