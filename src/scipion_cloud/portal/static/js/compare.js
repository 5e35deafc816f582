// The before/after slider, the switch to power spectra, and the arrow keys from movie to movie.
// Everything listens on the document, since the pictures may arrive after the page.

document.addEventListener("input", (event) => {
  const box = event.target.closest(".compare");
  if (box) box.style.setProperty("--split", `${event.target.value}%`);
});

document.addEventListener("click", (event) => {
  const chosen = event.target.closest("[data-view]");
  if (!chosen) return;
  for (const button of document.querySelectorAll("[data-view]")) button.setAttribute("aria-pressed", String(button === chosen));
  for (const box of document.querySelectorAll("[data-compare]")) box.hidden = box.dataset.compare !== chosen.dataset.view;
});

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select, textarea") || event.altKey || event.ctrlKey || event.metaKey) return;
  const rel = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  document.querySelector(`a[rel="${rel}"]`)?.click();
});
